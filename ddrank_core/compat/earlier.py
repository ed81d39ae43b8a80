"""ddranking's evaluators as 0.1 and the first release have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ddrank_core.compat.config import Config
from ddrank_core.compat.evaluate import Images
from ddrank_core.compat.evaluators import HardLabels, LabelRobust, SoftLabels, arguments_of
from ddrank_core.compat.results import Columns

if TYPE_CHECKING:
    from ddrank_core.data.importers.options import SpaceKind


class SoftLabelEvaluator(SoftLabels):
    """`LabelRobustScoreSoft` under its name in 0.1, with that release's arguments and meanings.

    Source: ddranking 0.1, dd_ranking/metrics/soft_label.py.
    """

    _release = "0.1"

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset/",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        soft_label_criterion: str = "kl",
        data_aug_func: str | None = "cutmix",
        aug_params: Mapping[str, Any] | None = None,
        soft_label_mode: str = "S",
        optimizer: str = "sgd",
        lr_scheduler: str = "step",
        temperature: float = 1.0,
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int = 300,
        use_zca: bool = False,
        real_batch_size: int = 256,
        syn_batch_size: int = 256,
        default_lr: float = 0.01,
        save_path: str | None = None,
        stu_use_torchvision: bool = False,
        tea_use_torchvision: bool = False,
        num_workers: int = 4,
        teacher_dir: str | None = "./teacher_models",
        custom_train_trans: Any = None,
        custom_val_trans: Any = None,
        device: str = "auto",
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(config, arguments_of(locals()))


class HardLabelEvaluator(HardLabels):
    """`LabelRobustScoreHard` under its name in 0.1, with that release's arguments and meanings.

    Source: ddranking 0.1, dd_ranking/metrics/hard_label.py.
    """

    _release = "0.1"

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset/",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        data_aug_func: str | None = "cutmix",
        aug_params: Mapping[str, Any] | None = None,
        optimizer: str = "sgd",
        lr_scheduler: str = "step",
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        use_zca: bool = False,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int = 300,
        real_batch_size: int = 256,
        syn_batch_size: int = 256,
        use_torchvision: bool = False,
        default_lr: float = 0.01,
        num_workers: int = 4,
        save_path: str | None = None,
        custom_train_trans: Any = None,
        custom_val_trans: Any = None,
        device: str = "auto",
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(config, arguments_of(locals()))


_DSA_EPOCHS = 1000
"""What the first release trains for with DSA, whatever `num_epochs` says."""


class Soft_Label_Objective_Metrics(LabelRobust):
    """The soft-label evaluator of the first release: HLR, IOR and their ratio, under its names.

    Source: NUS-HPC-AI-Lab/DD-Ranking before 0.1, dd_ranking/metrics.
    """

    _kind = "soft"
    _release = "first"
    _keys: ClassVar[Mapping[str, str]] = {
        "hard_recs": "hard_recs",
        "soft_imps": "soft_imps",
        "obj_metrics": "obj_metrics",
        "lrs": "label_robust_score",
    }

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset/",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        soft_label_criterion: str = "kl",
        data_aug_func: str | None = "cutmix",
        aug_params: Mapping[str, Any] | None = None,
        soft_label_mode: str = "S",
        optimizer: str = "sgd",
        lr_scheduler: str = "step",
        temperature: float = 1.0,
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int | None = None,
        use_zca: bool = False,
        batch_size: int = 256,
        default_lr: float = 0.01,
        save_path: str | None = None,
        device: str = "auto",
        *,
        teacher_dir: str | None = "./teacher_models",
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        if num_epochs is None:
            num_epochs = _DSA_EPOCHS if data_aug_func == "dsa" else 300
        super().__init__(config, arguments_of(locals()))

    def _columns(self, values: Columns) -> Columns:
        return {
            "hard_recs": values["hard_label_recovery"],
            "soft_imps": values["improvement_over_random"],
            "obj_metrics": values["ior_hlr"],
            "lrs": values["lrs"],
        }

    def compute_metrics(
        self,
        syn_images: Any = None,
        soft_labels: Any = None,
        syn_lr: Any = None,
        *,
        image_tensor: Any = None,
        image_path: str | None = None,
    ) -> dict[str, float]:
        """Train what is needed, write the CSV and return means and standard deviations.

        Raises:
            DDRankError: one line that says what is wrong.
        """
        tensor = image_tensor if syn_images is None else syn_images
        images = Images(tensor=tensor, path=image_path, soft_labels=soft_labels, learning_rate=syn_lr)
        return self._scores(images, 0.5)


class Hard_Label_Objective_Metrics(LabelRobust):
    """The hard-label evaluator of the first release: HLR, IOR and their ratio, under its names.

    Source: NUS-HPC-AI-Lab/DD-Ranking before 0.1, dd_ranking/metrics.
    """

    _kind = "hard"
    _release = "first"
    _keys: ClassVar[Mapping[str, str]] = {
        "hard_recs": "hard_recs",
        "hard_imps": "hard_imps",
        "obj_metrics": "obj_metrics",
        "lrs": "label_robust_score",
    }

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset/",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        data_aug_func: str | None = "cutmix",
        aug_params: Mapping[str, Any] | None = None,
        optimizer: str = "SGD",
        lr_scheduler: str = "StepLR",
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        use_zca: bool = False,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int | None = None,
        batch_size: int = 256,
        default_lr: float = 0.01,
        save_path: str | None = None,
        device: str = "auto",
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        if num_epochs is None:
            num_epochs = _DSA_EPOCHS if data_aug_func == "dsa" else 300
        super().__init__(config, arguments_of(locals()))

    def _columns(self, values: Columns) -> Columns:
        return {
            "hard_recs": values["hard_label_recovery"],
            "hard_imps": values["improvement_over_random"],
            "obj_metrics": values["ior_hlr"],
            "lrs": values["lrs"],
        }

    def compute_metrics(
        self,
        syn_images: Any = None,
        hard_labels: Any = None,
        syn_lr: Any = None,
        *,
        image_tensor: Any = None,
        image_path: str | None = None,
    ) -> dict[str, float]:
        """Train what is needed, write the CSV and return means and standard deviations.

        Raises:
            DDRankError: one line that says what is wrong.
        """
        tensor = image_tensor if syn_images is None else syn_images
        images = Images(tensor=tensor, path=image_path, hard_labels=hard_labels, learning_rate=syn_lr)
        return self._scores(images, 0.5)

"""ddranking's evaluators, with its arguments: those of 0.2, of 0.1 and of the first release.

    from ddranking.metrics import LabelRobustScoreSoft      # before
    from ddrank_core.compat.metrics import LabelRobustScoreSoft

Every argument is honoured, or refused with the reason. Four are new, and come by name only: `protocol`
(`strict`, or `ddranking-0.2` for numbers to compare with published ones), `image_space` (what the pixels of
`image_tensor` are, where they are not normalised), `download` (fetch the data set) and `seed`.

Accuracies and their differences are in percent, as ddranking returns them; LRS and ARS are in [0, 1], as
its paper defines them. Standard deviations are those of a sample (n - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddrank_core.compat import results
from ddrank_core.compat.config import Config
from ddrank_core.compat.earlier import (
    Hard_Label_Objective_Metrics,
    HardLabelEvaluator,
    Soft_Label_Objective_Metrics,
    SoftLabelEvaluator,
)
from ddrank_core.compat.evaluate import Images
from ddrank_core.compat.evaluators import Evaluator, HardLabels, SoftLabels, arguments_of

if TYPE_CHECKING:
    from ddrank_core.data.importers.options import SpaceKind

__all__ = [
    "AugmentationRobustScore",
    "GeneralEvaluator",
    "HardLabelEvaluator",
    "Hard_Label_Objective_Metrics",
    "LabelRobustScoreHard",
    "LabelRobustScoreSoft",
    "SoftLabelEvaluator",
    "Soft_Label_Objective_Metrics",
]


class LabelRobustScoreHard(HardLabels):
    """HLR, IOR, IOR/HLR and LRS of a method that trains with hard labels.

    Source: ddranking 0.2.0, metrics/hard_label.py, for names and defaults of the arguments.
    """

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
        step_size: int | None = None,
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        use_zca: bool = False,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int = 300,
        real_batch_size: int = 256,
        syn_batch_size: int = 256,
        use_torchvision: bool = False,
        num_workers: int = 4,
        save_path: str | None = None,
        custom_train_trans: Any = None,
        custom_val_trans: Any = None,
        device: str = "auto",
        dist: bool = False,
        random_data_format: str = "tensor",
        random_data_path: str | None = None,
        eval_full_data: bool = False,
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(config, arguments_of(locals()))


class LabelRobustScoreSoft(SoftLabels):
    """HLR, IOR, IOR/HLR and LRS of a method that trains with soft labels.

    Source: ddranking 0.2.0, metrics/soft_label.py, for names and defaults of the arguments.
    """

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset/",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        soft_label_criterion: str = "kl",
        loss_fn_kwargs: Mapping[str, Any] | None = None,
        data_aug_func: str | None = "cutmix",
        aug_params: Mapping[str, Any] | None = None,
        soft_label_mode: str = "S",
        optimizer: str = "sgd",
        lr_scheduler: str = "step",
        step_size: int | None = None,
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int = 300,
        use_zca: bool = False,
        use_aug_for_hard: bool = False,
        random_data_format: str = "tensor",
        random_data_path: str | None = None,
        real_batch_size: int = 256,
        syn_batch_size: int = 256,
        save_path: str | None = None,
        eval_full_data: bool = False,
        stu_use_torchvision: bool = False,
        tea_use_torchvision: bool = False,
        num_workers: int = 4,
        teacher_dir: str | None = "./teacher_models",
        teacher_model_names: Sequence[str] | None = None,
        custom_train_trans: Any = None,
        custom_val_trans: Any = None,
        device: str = "auto",
        dist: bool = False,
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(config, arguments_of(locals()))


class AugmentationRobustScore(Evaluator):
    """ARS: what is left of the improvement over random images without the augmentation.

    Source: ddranking 0.2.0, metrics/aug_robust.py, for names and defaults of the arguments.
    """

    _kind = "augmentation"

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset/",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        data_aug_func: str | None = "cutmix",
        aug_params: Mapping[str, Any] | None = None,
        label_type: str = "soft",
        soft_label_mode: str = "S",
        soft_label_criterion: str = "kl",
        optimizer: str = "sgd",
        lr_scheduler: str = "step",
        loss_fn_kwargs: Mapping[str, Any] | None = None,
        step_size: int | None = None,
        weight_decay: float = 0.0005,
        momentum: float = 0.9,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int = 300,
        use_zca: bool = False,
        batch_size: int = 256,
        save_path: str | None = None,
        stu_use_torchvision: bool = False,
        tea_use_torchvision: bool = False,
        num_workers: int = 4,
        teacher_dir: str | None = "./teacher_models",
        teacher_model_names: Sequence[str] | None = None,
        random_data_path: str | None = None,
        random_data_format: str = "image",
        custom_train_trans: Any = None,
        custom_val_trans: Any = None,
        device: str = "auto",
        dist: bool = False,
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(config, arguments_of(locals()))

    def compute_metrics(
        self,
        image_tensor: Any = None,
        image_path: str | None = None,
        soft_labels: Any = None,
        syn_lr: Any = None,
        ars_lambda: float = 0.5,
        hard_labels: Any = None,
    ) -> dict[str, float]:
        """Train what is needed, write the CSV and return means and standard deviations.

        Raises:
            DDRankError: one line that says what is wrong.
        """
        images = Images(
            tensor=image_tensor,
            path=image_path,
            soft_labels=soft_labels,
            hard_labels=hard_labels,
            learning_rate=syn_lr,
        )
        self._run(images, ars=ars_lambda)
        columns = {
            "with_aug_scores": results.differences(self.outcome, "syn-aug", "rdm-aug"),
            "without_aug_scores": results.differences(self.outcome, "syn-naug", "rdm-naug"),
            "ars_list": results.score_values(self.outcome, "ars"),
        }
        keys = {
            "with_aug_scores": "with_aug_scores",
            "without_aug_scores": "without_aug_scores",
            "ars_list": "augmentation_robust_score",
        }
        return self._finish(columns, keys)


class GeneralEvaluator(Evaluator):
    """The test accuracy of a recipe on distilled images; random images with the same recipe are beside it.

    Source: ddranking 0.2.0, metrics/general.py, for names and defaults of the arguments.
    """

    _kind = "general"

    def __init__(
        self,
        config: Config | None = None,
        dataset: str = "CIFAR10",
        real_data_path: str = "./dataset",
        ipc: int = 10,
        model_name: str = "ConvNet-3",
        use_soft_label: bool = False,
        optimizer: str = "adamw",
        lr_scheduler: str = "cosine",
        weight_decay: float = 0.01,
        momentum: float = 0.9,
        step_size: int | None = None,
        data_aug_func: str | None = "dsa",
        aug_params: Mapping[str, Any] | None = None,
        soft_label_mode: str = "M",
        soft_label_criterion: str = "kl",
        loss_fn_kwargs: Mapping[str, Any] | None = None,
        num_eval: int = 5,
        im_size: tuple[int, int] | None = None,
        num_epochs: int = 300,
        batch_size: int = 256,
        use_zca: bool = False,
        stu_use_torchvision: bool = False,
        tea_use_torchvision: bool = False,
        teacher_dir: str | None = "./teacher_models",
        teacher_model_names: Sequence[str] | None = None,
        custom_train_trans: Any = None,
        custom_val_trans: Any = None,
        num_workers: int = 4,
        save_path: str | None = None,
        dist: bool = False,
        device: str = "auto",
        *,
        protocol: str = "strict",
        image_space: SpaceKind | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(config, arguments_of(locals()))

    def compute_metrics(
        self,
        image_tensor: Any = None,
        image_path: str | None = None,
        labels: Any = None,
        syn_lr: Any = None,
    ) -> dict[str, float]:
        """Train what is needed, write the CSV and return means and standard deviations.

        `labels` are soft labels [N, K], or class labels [N].

        Raises:
            DDRankError: one line that says what is wrong.
        """
        soft = labels is not None and getattr(labels, "ndim", 1) == 2
        images = Images(
            tensor=image_tensor,
            path=image_path,
            soft_labels=labels if soft else None,
            hard_labels=None if soft else labels,
            learning_rate=syn_lr,
        )
        self._run(images)
        rates = tuple(rate or 0.0 for rate in self.outcome.arms["syn-any"].learning_rates)
        columns = {
            "accs": results.percent(self.outcome, "syn-any"),
            "lrs": rates,
            "improvement_over_random": results.score_values(self.outcome, "ior", 100),
        }
        keys = {"accs": "acc", "improvement_over_random": "improvement_over_random"}
        return self._finish(columns, keys)

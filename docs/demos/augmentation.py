"""ARS of a method, through the interface of ddranking.

Without arguments: distilled digits, which the repository brings, with hard labels.

    python docs/demos/augmentation.py
    python docs/demos/augmentation.py --dataset ImageNet1K --data ./datasets/imagenet --ipc 10 \
        --model ResNet-18-BN --image-folder ./SRe2L/ImageNet1K/IPC10 --lr 0.001 \
        --teacher-dir ./teacher_models --epochs 300 --repeats 5
    python docs/demos/augmentation.py --config Demo_ARS.yaml --image-folder ./SRe2L/ImageNet1K/IPC10
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torchvision import transforms

from ddrank_core.compat.config import Config
from ddrank_core.compat.metrics import AugmentationRobustScore
from ddrank_core.data import distilled

DIGITS = Path(__file__).parents[2] / "configs" / "data" / "digits-dm-ipc1.safetensors"
SIDE = {"CIFAR10": 32, "CIFAR100": 32, "TinyImageNet": 64, "ImageNet1K": 224}


def main() -> None:
    args = arguments()
    if args.config:
        evaluator = AugmentationRobustScore(Config.from_file(args.config))
    else:
        evaluator = AugmentationRobustScore(
            dataset=args.dataset,
            real_data_path=args.data,
            ipc=args.ipc,
            model_name=args.model,
            **(photographs(args) if args.dataset in SIDE else digits()),
            num_epochs=args.epochs,
            num_eval=args.repeats,
            save_path=args.save,
            device=args.device,
            protocol=args.protocol,
        )
    distilled_images: dict[str, Any] = (
        {"image_path": args.image_folder}
        if args.image_folder
        else {"image_tensor": distilled.load(DIGITS).images}
    )
    print(evaluator.compute_metrics(**distilled_images, syn_lr=args.lr))


def photographs(args: argparse.Namespace) -> dict[str, Any]:
    """Return what SRe2L and its followers evaluate with: a teacher labels every view."""
    side = SIDE[args.dataset]
    crop = [transforms.RandomResizedCrop(side, scale=(0.08, 1.0)), transforms.RandomHorizontalFlip()]
    return {
        "label_type": "soft",
        "soft_label_mode": "M",
        "soft_label_criterion": "kl",
        "loss_fn_kwargs": {"temperature": 1.0, "scale_loss": False},
        "custom_train_trans": transforms.Compose([*crop, transforms.ToTensor()]),
        "data_aug_func": "cutmix",
        "aug_params": {"beta": 1.0},
        "optimizer": "adamw",
        "lr_scheduler": "cosine",
        "weight_decay": 0.01,
        "stu_use_torchvision": True,
        "tea_use_torchvision": True,
        "teacher_dir": args.teacher_dir,
        "teacher_model_names": [args.model],
    }


def digits() -> dict[str, Any]:
    """Return a recipe with hard labels, for pictures that must not be mirrored."""
    return {
        "label_type": "hard",
        "data_aug_func": "dsa",
        "aug_params": {"rotate": 15.0, "scale": 1.2, "crop": 0.125, "cutout": 0.5, "flip": 0.0},
        "optimizer": "sgd",
        "lr_scheduler": "cosineannealing",
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ARS of a method.")
    parser.add_argument("--config", help="a YAML config of ddranking, in place of all that follows")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="the folder of the real data set")
    parser.add_argument("--image-folder", help="distilled pictures, one folder per class")
    parser.add_argument("--lr", type=float, help="the method's own learning rate")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--model", default="MLP")
    parser.add_argument(
        "--teacher-dir", help="DATASET/MODEL/ckpt_best.pt is in it; else a teacher is trained"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", default="results/augmentation_scores.csv")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--protocol", default="strict", choices=["strict", "ddranking-0.2"])
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""LRS of a method with soft labels, through the interface of ddranking.

Without arguments: distilled digits, which the repository brings, and a teacher that is trained here.

    python docs/demos/soft_label.py
    python docs/demos/soft_label.py --dataset CIFAR10 --data ./datasets --ipc 10 --model ConvNet-3 \
        --images images.pt --soft-labels labels.pt --lr lr.pt --teacher-dir ./teacher_models \
        --epochs 1000 --repeats 5
    python docs/demos/soft_label.py --config Demo_LRS_Soft_Label.yaml --images images.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ddrank_core.compat.config import Config
from ddrank_core.compat.metrics import LabelRobustScoreSoft
from ddrank_core.data import distilled

DIGITS = Path(__file__).parents[2] / "configs" / "data" / "digits-dm-ipc1.safetensors"


def main() -> None:
    args = arguments()
    if args.config:
        evaluator = LabelRobustScoreSoft(Config.from_file(args.config))
    else:
        evaluator = LabelRobustScoreSoft(
            dataset=args.dataset,
            real_data_path=args.data,
            ipc=args.ipc,
            model_name=args.model,
            soft_label_mode="S" if args.soft_labels else "M",
            soft_label_criterion="sce" if args.soft_labels else "kl",
            loss_fn_kwargs={"temperature": 1.0, "scale_loss": False},
            data_aug_func="dsa",
            aug_params={"rotate": 15.0, "scale": 1.2, "crop": 0.125, "cutout": 0.5, "flip": args.flip},
            optimizer="sgd",
            lr_scheduler="step",
            step_size=max(1, args.epochs // 2),
            num_epochs=args.epochs,
            num_eval=args.repeats,
            eval_full_data=True,
            teacher_dir=args.teacher_dir,
            teacher_model_names=[args.model],
            save_path=args.save,
            device=args.device,
            protocol=args.protocol,
        )
    print(
        evaluator.compute_metrics(
            image_tensor=images(args.images),
            soft_labels=torch.load(args.soft_labels, weights_only=True) if args.soft_labels else None,
            syn_lr=torch.load(args.lr, weights_only=True) if args.lr else None,
        )
    )


def images(path: Path) -> torch.Tensor:
    if path.suffix == ".safetensors":
        return distilled.load(path).images
    return torch.load(path, map_location="cpu", weights_only=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="LRS of a method with soft labels.")
    parser.add_argument("--config", help="a YAML config of ddranking, in place of all that follows")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="the folder of the real data set")
    parser.add_argument("--images", type=Path, default=DIGITS)
    parser.add_argument("--soft-labels", help="a .pt file with one soft label per image")
    parser.add_argument("--lr", help="a .pt file with the method's own learning rate")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--model", default="MLP")
    parser.add_argument(
        "--teacher-dir", help="DATASET/MODEL/ckpt_best.pt is in it; else a teacher is trained"
    )
    parser.add_argument(
        "--flip", type=float, default=0.0, help="probability; 0 for digits, 0.5 for photographs"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", default="results/soft_label_scores.csv")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--protocol", default="strict", choices=["strict", "ddranking-0.2"])
    return parser.parse_args()


if __name__ == "__main__":
    main()

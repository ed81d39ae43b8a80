"""LRS of a method with hard labels, through the interface of ddranking.

Without arguments: distilled digits, which the repository brings.

    python docs/demos/hard_label.py
    python docs/demos/hard_label.py --dataset CIFAR10 --data ./datasets --ipc 10 --model ConvNet-3 \
        --images images.pt --flip 0.5 --epochs 1000 --repeats 5
    python docs/demos/hard_label.py --config Demo_LRS_Hard_Label.yaml --images images.pt --lr 0.01
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ddrank_core.compat.config import Config
from ddrank_core.compat.metrics import LabelRobustScoreHard
from ddrank_core.data import distilled

DIGITS = Path(__file__).parents[2] / "configs" / "data" / "digits-dm-ipc1.safetensors"


def main() -> None:
    args = arguments()
    if args.config:
        evaluator = LabelRobustScoreHard(Config.from_file(args.config))
    else:
        evaluator = LabelRobustScoreHard(
            dataset=args.dataset,
            real_data_path=args.data,
            ipc=args.ipc,
            model_name=args.model,
            data_aug_func="dsa",
            aug_params={"rotate": 15.0, "scale": 1.2, "crop": 0.125, "cutout": 0.5, "flip": args.flip},
            optimizer="sgd",
            lr_scheduler="step",
            step_size=max(1, args.epochs // 2),
            num_epochs=args.epochs,
            num_eval=args.repeats,
            eval_full_data=True,
            save_path=args.save,
            device=args.device,
            protocol=args.protocol,
        )
    print(evaluator.compute_metrics(image_tensor=images(args.images), syn_lr=args.lr))


def images(path: Path) -> torch.Tensor:
    if path.suffix == ".safetensors":
        return distilled.load(path).images
    return torch.load(path, map_location="cpu", weights_only=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="LRS of a method with hard labels.")
    parser.add_argument("--config", help="a YAML config of ddranking, in place of all that follows")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="the folder of the real data set")
    parser.add_argument("--images", type=Path, default=DIGITS)
    parser.add_argument("--lr", type=float, help="the method's own learning rate")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--model", default="MLP")
    parser.add_argument(
        "--flip", type=float, default=0.0, help="probability; 0 for digits, 0.5 for photographs"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", default="results/hard_label_scores.csv")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--protocol", default="strict", choices=["strict", "ddranking-0.2"])
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""LoRA (Hu et al., ICLR 2022), through peft: small adapters are trained, and the encoder's own weights stay.

A checkpoint holds the merged weights, which open everywhere, and beside them the adapters in peft's format, from which
training goes on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from torch import nn
from transformers import Trainer

from ..errors import UserError, one_line
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from .arguments import ArcCSETrainingArguments

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "adapter"
"""The folder of the adapters in a checkpoint. Beside the weights, transformers would load them on top of those."""


def add_adapters(model: ArcCSEForContrastiveLearning, args: ArcCSETrainingArguments) -> PeftModel:
    """Puts adapters into the encoder and freezes its weights; a projection on top is trained too.

    Args:
        model: Changed in place.
        args: With a `lora_r`.

    Returns:
        Peft's view of the encoder, which saves and loads the adapters.

    Raises:
        UserError: peft is not installed, or the encoder has no such modules.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(f"--lora_r {args.lora_r}: needs peft: pip install 'arccse-hf[lora]'") from error
    assert args.lora_r is not None and args.lora_alpha is not None
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules or "all-linear",
    )
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers for a name that transformers 6 will not have.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return get_peft_model(model.base_model.encoder, config)
    except ValueError as error:
        raise UserError(f"--lora_target_modules {' '.join(args.lora_target_modules)}: {one_line(error)}") from error


class AdapterTrainer(Trainer):
    """A `Trainer` whose checkpoints hold the adapters of its model, where it has some.

    Trainer knows adapters in a `PeftModel` only, and would pass over those inside of another model in silence.
    """

    adapters: PeftModel | None = None

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.adapters is not None and self.args.should_save:
            # Otherwise peft might ask the hub whether the vocabulary has grown.
            folder = Path(output_dir or self.args.output_dir, ADAPTER)
            self.adapters.save_pretrained(str(folder), save_embedding_layers=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.adapters is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_adapters(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.adapters is None:
            super()._load_best_model()
        else:
            self._load_adapters(Path(self.state.best_model_checkpoint))

    def _load_adapters(self, checkpoint: Path) -> None:
        """Loads the adapters, and of the other weights those that are trained."""
        from peft import load_peft_weights, set_peft_model_state_dict

        folder = checkpoint / ADAPTER
        if not folder.is_dir():
            raise UserError(f"{checkpoint}: holds no adapters; --lora_r goes on only with what began with it")
        set_peft_model_state_dict(self.adapters, load_peft_weights(str(folder), device="cpu"))
        trained = [name for name, weight in self.model.named_parameters() if weight.requires_grad]
        with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
            others = {name: file.get_tensor(name) for name in trained if "lora_" not in name}
        self.model.load_state_dict(others, strict=False)

"""torch-cpu, torch-mps, torch-cuda: the checkpoint itself in fp32; torch-cpu-bf16: every weight and result in bfloat16."""

from importlib import metadata

import numpy as np
import torch

from toolkit._torchvision import import_torchvision
from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.devices import BACKENDS
from toolkit.networks import WithProbabilities, from_checkpoint
from toolkit.runtimes.base import Session, images_of
from toolkit.tensors import LOGITS, PROBABILITIES, Batch


def why_not(device: str, dtype: str = "float32") -> str | None:
    import_torchvision()  # here, so that its import is not measured as part of loading a model
    return BACKENDS[device].why_not()


def version() -> str:
    return metadata.version("torch")


def open_session(artifact: Artifact, threads: int | None, device: str, dtype: str = "float32") -> Session:
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default rounds convolutions to 10 bits: that is not fp32
    return TorchSession(artifact, BACKENDS[device].torch_device, getattr(torch, dtype))


class TorchSession:
    def __init__(self, artifact: Artifact, torch_device: str, dtype: torch.dtype = torch.float32) -> None:
        self.artifact, self.torch_device, self.dtype = artifact, torch_device, dtype
        self.model = WithProbabilities(from_checkpoint(Checkpoint.open(artifact.folder))).eval().to(torch_device, dtype)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Batch:
        images = torch.from_numpy(np.array(images_of(batch, self.artifact)))  # a copy: read-only arrays are welcome
        logits, probabilities = self.model(images.to(self.torch_device, self.dtype))
        return {LOGITS: logits.cpu().float().numpy(), PROBABILITIES: probabilities.cpu().float().numpy()}  # .cpu() waits for the device

    def placement(self) -> tuple[str, ...]:
        return (self.torch_device,)

    def planned(self) -> dict[str, int]:
        return {}

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None:
        del self.model

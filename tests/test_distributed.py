"""Two processes (gloo): equal parameters everywhere, and the mathematics of one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).parent / "distributed_worker.py"


def launch(folder, mode, processes=2):
    """Runs the worker on that many processes; returns what each of them saved."""
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(WORKER), str(folder), mode,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{mode}-{processes}-{rank}.pt") for rank in range(processes)]


@pytest.mark.parametrize("mode", ["pairs", "triplets"])
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path, mode):
    """Negatives of both processes, with their gradient: also with accumulation, and the same numbers when evaluated."""
    first, second = launch(tmp_path, mode)
    (alone,) = launch(tmp_path, mode, processes=1)
    assert (first["world_size"], second["world_size"], alone["world_size"]) == (2, 2, 1)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        torch.testing.assert_close(weight, alone["weights"][name], atol=1e-6, rtol=0, msg=name)
        moved = (weight - alone["start"][name]).abs().max()
        assert moved > 1e-5 or "embeddings.token_type" in name or "key.bias" in name, name
    assert first["metrics"] == second["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    for name in ("arccon_loss", "positive_cosine", "negative_cosine"):
        assert first["log"][name] == pytest.approx(alone["log"][name], abs=1e-5), name


def test_without_gathering_each_process_has_only_its_own_negatives(tmp_path):
    first, second = launch(tmp_path, "local")
    (alone,) = launch(tmp_path, "pairs", processes=1)
    name = "arccse.encoder.encoder.layer.0.attention.self.value.weight"
    assert torch.equal(first["weights"][name], second["weights"][name])
    assert not torch.allclose(first["weights"][name], alone["weights"][name], atol=1e-6)


def test_gathered_keys_of_uneven_batches_carry_the_gradient_home(tmp_path):
    first, second = launch(tmp_path, "gather")
    assert first["world_size"] == second["world_size"] == 2
    own = [torch.arange(6.0).reshape(3, 2), 10 + torch.arange(4.0).reshape(2, 2)]
    assert torch.equal(first["keys"], torch.cat([own[0], own[1]]))
    assert torch.equal(second["keys"], torch.cat([own[1], own[0]]))
    # Each process weighs the rows it sees by 1, 2, 3 ...; a row's gradient is the sum of its weights on both.
    assert first["gradient"][:, 0].tolist() == [1 + 3, 2 + 4, 3 + 5]
    assert second["gradient"][:, 0].tolist() == [4 + 1, 5 + 2]

"""Two processes (gloo): equal parameters everywhere, and the mathematics of one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

MODES = {1: ["pairs", "triplets"], 2: ["pairs", "triplets", "local", "gather"]}
WORKER = Path(__file__).parent / "distributed_worker.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What every process saved, by mode: `results[mode, processes][rank]`. Starting processes is most of the work, so
    one launch on each number of processes goes through all modes."""
    folder = tmp_path_factory.mktemp("distributed")
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    for processes in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
        done = subprocess.run(
            [*launcher, str(WORKER), str(folder), *MODES[processes]],
            capture_output=True, text=True, env=environment, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    return {
        (mode, processes): [torch.load(folder / f"{mode}-{processes}-{rank}.pt") for rank in range(processes)]
        for processes, modes in MODES.items()
        for mode in modes
    }


@pytest.mark.parametrize("mode", ["pairs", "triplets"])
def test_two_processes_train_as_one_with_the_whole_batch(results, mode):
    """Negatives of both processes, with their gradient: also with accumulation, and the same numbers when evaluated."""
    first, second = results[mode, 2]
    (alone,) = results[mode, 1]
    assert (first["world_size"], second["world_size"], alone["world_size"]) == (2, 2, 1)
    moved = {name: (weight - alone["start"][name]).abs().max() for name, weight in first["weights"].items()}
    assert max(moved.values()) > 1e-2
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        torch.testing.assert_close(weight, alone["weights"][name], atol=1e-6, rtol=0, msg=name)
    assert first["metrics"] == second["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    for name in ("arccon_loss", "positive_cosine", "negative_cosine"):
        assert first["log"][name] == pytest.approx(alone["log"][name], abs=1e-5), name


def test_without_gathering_each_process_has_only_its_own_negatives(results):
    first, second = results["local", 2]
    (alone,) = results["pairs", 1]
    name = "arccse.encoder.embeddings.word_embeddings.weight"
    assert torch.equal(first["weights"][name], second["weights"][name])
    assert not torch.allclose(first["weights"][name], alone["weights"][name], atol=1e-5)


def test_gathered_keys_of_uneven_batches_carry_the_gradient_home(results):
    first, second = results["gather", 2]
    assert first["world_size"] == second["world_size"] == 2
    own = [torch.arange(6.0).reshape(3, 2), 10 + torch.arange(4.0).reshape(2, 2)]
    assert torch.equal(first["keys"], torch.cat([own[0], own[1]]))
    assert torch.equal(second["keys"], torch.cat([own[1], own[0]]))
    # Each process weighs the rows it sees by 1, 2, 3 ...; a row's gradient is the sum of its weights on both.
    assert first["gradient"][:, 0].tolist() == [1 + 3, 2 + 4, 3 + 5]
    assert second["gradient"][:, 0].tolist() == [4 + 1, 5 + 2]

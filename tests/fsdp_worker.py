"""What test_distributed.py runs on each process to train with sharded weights: the script, several times."""

import json
import os
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from arccse_hf.training import script
from arccse_hf.training.trainer import ArcCSETrainer

_initialise = AcceleratorState.__init__


def shard_on_the_cpu(self, *args, fsdp_plugin=None, **kwargs):
    """Accelerate shards on accelerators alone, and says nothing where it does not: the state that it sets for them."""
    first = not AcceleratorState._shared_state
    _initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if first:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)


if __name__ == "__main__":
    AcceleratorState.__init__ = shard_on_the_cpu
    ArcCSETrainer.end = lambda self: None  # the process group serves the next run too
    for state_dict_type, command in json.loads(sys.argv[1]):
        os.environ["FSDP_STATE_DICT_TYPE"] = state_dict_type
        script.main(command)
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()  # left to the interpreter's end, it aborts the process now and then

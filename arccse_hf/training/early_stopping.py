"""Early stopping that a resumed run goes on with."""

from transformers import EarlyStoppingCallback


class EarlyStopping(EarlyStoppingCallback):
    """`EarlyStoppingCallback`, counting on from the checkpoint of a resumed run."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Takes up the count; a run that had stopped early stays stopped, unless it has more patience now."""
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = 0
        if state.global_step == 0:
            return  # what stands in the state is this callback's own, as a run before has left it
        # Checkpoints of earlier versions have the name of the class above; one of a run without patience has neither.
        kept = state.stateful_callbacks.get("EarlyStopping") or state.stateful_callbacks.get("EarlyStoppingCallback")
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        if kept:
            self.early_stopping_patience_counter = kept["attributes"]["early_stopping_patience_counter"]
            control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience

"""From a file to a batch, in the order of the flow."""

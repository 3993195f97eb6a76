"""Token repetition: a second view of a sentence that says some of its words twice."""

from collections.abc import Sequence

import torch

MOST_REPEATED = 9
"""So many tokens are repeated at most, however long the sentence (ESimCSE's code)."""


def repeat_tokens(
    token_ids: Sequence[int], content: Sequence[int], share: float, room: int, generator: torch.Generator
) -> list[int]:
    """Returns the sentence with some of its tokens twice in a row, so that its length gives it away no more.

    Two views of equal length teach an encoder that length is meaning (ESimCSE, Wu et al., COLING 2022). How many tokens
    are repeated is uniform from none to `share` of them, which ones is uniform too.

    Args:
        token_ids: The whole sentence, with special tokens.
        content: The positions in `token_ids` of the tokens that are not special, in order.
        share: The share of `content` that is repeated at most, in [0, 1].
        room: By how many tokens the sentence may become longer.
        generator: The source of randomness.

    Example:
        >>> repeat_tokens([101, 7, 8, 102], content=[1, 2], share=0.5, room=9, generator=torch.Generator())
        [101, 7, 7, 8, 102]
    """
    most = min(int(share * len(content)), MOST_REPEATED, room)
    count = int(torch.randint(most + 1, (), generator=generator))
    order = torch.randperm(len(content), generator=generator)[:count].tolist()
    repeated = {content[index] for index in order}
    return [token for position, token in enumerate(token_ids) for token in [token] * (1 + (position in repeated))]

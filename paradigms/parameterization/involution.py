"""The filter of involution (arXiv:2103.06255)."""

from paradigms.parameterization.generated_filter import BottleneckFilter


class Involution(BottleneckFilter):
    """Logits of every pixel from its own channels: W ReLU(BN(U x_i)), U to a quarter of them, as released.

    Its groups are our heads, K numbers each; the released layers have a group every 16 channels.
    """

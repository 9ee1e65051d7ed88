"""The filter of involution (arXiv:2103.06255)."""

from paradigms.parameterization.generated_filter import BottleneckFilter


class Involution(BottleneckFilter):
    """Logits W ReLU(BN(U x_i)) of every pixel from its own channels; U reduces them to a quarter, as released.

    The groups of involution are our heads; the released layers have one group per 16 channels.
    """

"""A GPU that is too small stops a job before it starts; the memory of a CPU is nobody's business."""

import pytest

from quantrust.errors import QuantrustError
from quantrust.models.device_memory import require_device_memory


def test_a_gpu_that_is_too_small_is_refused_with_what_is_needed_what_there_is_and_what_to_do():
    with pytest.raises(QuantrustError) as raised:
        require_device_memory("dump_features of x", 18_200_000_000, "cuda", "take a larger one", total=17_179_869_184)
    assert str(raised.value) == (
        "dump_features of x needs about 18.2 GB of device memory, but cuda has 17.2 GB in all; take a larger one"
    )


@pytest.mark.parametrize(("device", "total"), [("cuda", 10**9), ("cuda:1", 10**9 + 1), ("cpu", 1)])
def test_what_fits_goes_on(device, total):
    require_device_memory("job", 10**9, device, "nothing", total=total)


def test_the_memory_of_a_cpu_is_not_asked_for():
    require_device_memory("job", 10**18, "cpu", "nothing")

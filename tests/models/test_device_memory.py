"""A GPU that is too small stops a job before it starts; the memory of a CPU is nobody's business."""

import pytest

from quantrust.errors import QuantrustError
from quantrust.models.device_memory import require_device_memory


def test_a_gpu_that_is_too_small_is_refused_with_what_is_needed_what_there_is_and_what_to_do():
    memory = (17_179_869_184, 25_769_803_776)
    with pytest.raises(QuantrustError) as raised:
        require_device_memory("dump_features of x", 18_200_000_000, "cuda", "take a larger one", memory)
    assert str(raised.value) == (
        "dump_features of x needs about 18.2 GB of device memory, but of the 25.8 GB of cuda 17.2 GB are free; take a "
        "larger one"
    )


@pytest.mark.parametrize(("device", "free"), [("cuda", 10**9), ("cuda:1", 10**9 + 1), ("cpu", 1)])
def test_what_fits_goes_on(device, free):
    require_device_memory("job", 10**9, device, "nothing", (free, 10**10))


def test_the_memory_of_a_cpu_is_not_asked_for():
    require_device_memory("job", 10**18, "cpu", "nothing")

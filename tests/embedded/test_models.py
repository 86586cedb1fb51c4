import pytest
import torch

from quantrust.embedded.models import IMAGE_SIZE, SPECS, build_model, train_tokenizer
from quantrust.models.family import MatchingFamily, VisionInputs
from quantrust.models.loading import load_family


@pytest.mark.parametrize("name", ["blip2-tiny", "blip2-itm-tiny"])
def test_each_query_of_a_new_model_looks_at_a_patch_of_its_own(name):
    spec = SPECS[name]
    family = load_family(spec.family)
    assert spec.queries == (IMAGE_SIZE // spec.patch) ** 2
    model = build_model(spec, train_tokenizer(["a red 3"], spec.family), 0)
    first = model.get_submodule("qformer.encoder.layer.0.crossattention.attention")
    inputs = {}
    first.query.register_forward_hook(lambda module, args, output: inputs.update(query=output))
    first.key.register_forward_hook(lambda module, args, output: inputs.update(key=output))
    picture = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = family.encode_images(model, VisionInputs({"pixel_values": picture}, ("",), (None,)))
        if isinstance(family, MatchingFamily):
            family.image_states(model, images)
    # the first key is that of the whole picture
    fit = inputs["query"][0] @ inputs["key"][0, 1:].T
    assert fit.argmax(dim=1).tolist() == list(range(spec.queries))

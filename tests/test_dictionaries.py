"Dictionaries: planted channels are found by the one that is recommended and by no random one; all keep their promises; they fit into models."
import numpy as np, pytest, torch
from nightly import NIGHTLY, noted
from saliency_nb.bases import build_model, initialise
from saliency_nb.core import ParameterError
from saliency_nb.dictionaries import (Channels, Components, Learned, Parts, RandomDirections, Rotated, SparseActivations, SparseAutoencoder,
                                      explained, planted_channels, recovered_share, sampled_places, with_dictionary)
from saliency_nb.training import FrozenFeatures

SMALL = dict(backbone='timm:mobilenetv3_small_050')

def autoencoder(x, seed=0): return SparseAutoencoder(32, 4, steps=800, batch=512, lr=3e-3).fit(x, seed)

def test_toy_host_planted_channels_are_found():
    found, turned, chance = [], [], []
    for seed in range(20 if NIGHTLY else 2):
        x, planted = planted_channels(seed=seed)
        fitted, test, truth = x[:15_000], x[15_000:], planted[15_000:]
        sparse = autoencoder(fitted, seed)
        found.append(recovered_share(sparse.encode(test), truth))
        turned.append(recovered_share(Rotated(sparse).fit(fitted, seed).encode(test), truth))
        chance.append(recovered_share(RandomDirections(32, 4).fit(fitted, seed).encode(test), truth))
    noted('planted channels found', autoencoder=np.mean(found), least=min(found), rotated=np.mean(turned), random=np.mean(chance), seeds=len(found))
    assert min(found) >= .9
    assert max(turned) < .5 and max(chance) < .5

def test_without_sparse_channels_nothing_is_found():
    "A world without the effect: Gaussian channels, active everywhere, have no axes to be found."
    gaussian = torch.randn(20_000, 24, generator=torch.Generator().manual_seed(0))
    mixed = gaussian @ torch.randn(24, 32, generator=torch.Generator().manual_seed(1))
    x = (mixed - mixed.mean(0)) / mixed.std(0)
    assert recovered_share(autoencoder(x[:15_000]).encode(x[15_000:]), gaussian[15_000:]) < .5

@pytest.mark.parametrize('dictionary', [Channels(), Components(16), Parts(16), RandomDirections(16, 4), SparseAutoencoder(16, 4, steps=50, batch=256)], ids=lambda d: type(d).__name__)
def test_one_interface(dictionary):
    x, _ = planted_channels(places=3000)
    codes = dictionary.fit(x).encode(x)
    assert dictionary.decode(codes).shape == x.shape and len(codes) == len(x) and torch.isfinite(codes).all()
    assert 0 < explained(dictionary, x) <= 1
    if dictionary.active: assert (codes > 0).sum(1).max() <= dictionary.active and (codes >= 0).all()

def test_the_channels_lose_nothing():
    x, _ = planted_channels(places=3000)
    assert explained(Channels().fit(x), x) > .999 and explained(Components(32).fit(x), x) > .99

class Pictures(torch.utils.data.Dataset):
    "Noise, with a fixation each."
    def __len__(self): return 5
    def __getitem__(self, i):
        draw = torch.Generator().manual_seed(i)
        looked = torch.zeros(64, 96)
        looked[20, 30] = 1
        return dict(image=torch.randn(3, 64, 96, generator=draw), fixations=looked, density=looked, id=str(i))

def test_in_a_model_codes_are_activations_from_images_features_and_cache():
    torch.manual_seed(0)
    items = Pictures()
    model = initialise(build_model('readout', 24, active=4, **SMALL), torch.stack([items[i]['image'] for i in range(5)]))
    features = FrozenFeatures(model.host, items)
    dictionary = SparseAutoencoder(24, 4, steps=30, batch=128).fit(sampled_places(features, 50))
    with_dictionary(model, dictionary)
    cached = SparseActivations(model, features)
    for view, image in (('activations', items[2]['image']), ('mirrored', items[2]['image'].flip(-1))):
        with torch.no_grad(): a = model.eval().activations(image[None])[0]
        codes = dictionary.encode(model.host(image[None])[0].flatten(1).T).T.view_as(a)
        assert torch.allclose(a, codes, atol=1e-4)
        assert ((cached[2][view] - a).abs() > .01 * a.max()).float().mean() < .002 # half precision may swap two that are nearly equal
    again = Learned(model).fit(sampled_places(features, 50))
    assert torch.allclose(again.encode(model.host(image[None])[0].flatten(1).T), codes.flatten(1).T, atol=1e-4)

def test_a_dictionary_that_does_not_fit():
    x = torch.randn(500, build_model('readout', 4, **SMALL).host.dim)
    for dictionary, options in ((RandomDirections(8, 2), dict(active=3)), (Channels(), dict(active=2)), (Parts(4), dict())):
        with pytest.raises(ParameterError): with_dictionary(build_model('readout', 8, **SMALL, **options), dictionary.fit(x))

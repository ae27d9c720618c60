"Units with names: the gate opens for planted channels, stays shut on one axis and for random dictionaries; overlaps notice wrong labels; units that are switched off take their name's prediction."
import numpy as np, pytest, torch
from nightly import NIGHTLY, noted
from saliency_nb.dictionaries import Channels, Components, Dictionary, SparseAutoencoder
from saliency_nb.overlap import LabelledPlaces, Overlaps, active_share, agreement_of_units, all_features
from saliency_nb.overlap import best_unit, effective_dimensions, images_with_names, probe_auc, relabelled
from saliency_nb.units import Contrasts, Differences, Matched, difference_weights, gate, gate_of, known_names
from saliency_nb.units import selectivity, switch_off, verdict

NAMES, EVERYTHING = 8, torch.ones(20)

def autoencoder(x, steps=400): return SparseAutoencoder(32, 4, steps=steps, batch=256, lr=3e-3).fit(x)

def filled(parts, seen):
    "Accumulators that have seen images."
    for image in seen:
        for part in parts: part.add(image)
    return parts

@pytest.fixture(scope='module')
def planted():
    "Places to learn from, images to test on, an autoencoder."
    images = images_with_names(90)
    places = all_features(images[:40])
    return places, images[40:], autoencoder(places)

@pytest.fixture(scope='module')
def collapsed():
    images = images_with_names(90, collapsed=True)
    places = all_features(images[:40])
    return places, images[40:], autoencoder(places, 100)

def test_a_difference_is_a_difference_of_means():
    on = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    weights, known = difference_weights(on)
    assert known.tolist() == [True, True, False]
    x = torch.tensor([1., 2., 4., 8., 16.])
    assert torch.allclose(weights @ x, torch.tensor([1.5 - 4, 3 - 1.])) # cells 3 and 4 have no name
    assert not difference_weights(on[:1])[1].any() and not len(difference_weights(on[:0])[0])

@pytest.fixture(scope='module')
def drawn(planted):
    "Twenty-four random dictionaries that have seen the images."
    places, seen, sparse = planted
    return filled([Differences(Matched(sparse, places, k), NAMES, 32) for k in range(24)], seen)

def test_the_gate_is_open_for_planted_channels(planted, drawn):
    places, seen, sparse = planted
    learned, = filled([Differences(sparse, NAMES, 32)], seen)
    found = gate(learned, drawn[:20], effective_dimensions(places))
    assert found['open'] and found['low'] > .2 and found['names'] == NAMES and verdict(found).startswith('Units go with names')

def test_the_gate_is_shut_on_one_axis(collapsed):
    places, seen, sparse = collapsed
    found, *_ = gate_of(sparse, places, seen, NAMES, draws=3)
    assert not found['open'] and found['dimensions'] < 1.5 and 'one axis' in verdict(found)
    assert effective_dimensions(places) < effective_dimensions(torch.randn(5000, 32)) / 10

@pytest.mark.parametrize('dictionary', [Channels(), Components(32)], ids=lambda d: type(d).__name__)
def test_the_gate_is_shut_for_mixtures(dictionary, planted):
    places, seen, _ = planted
    found, *_ = gate_of(dictionary.fit(places), places, seen, NAMES, draws=3)
    assert not found['open'] and found['dimensions'] > 3 and 'not shown' in verdict(found)

def test_random_dictionaries_rarely_open_it(planted, drawn):
    "A world without the effect: what is asked about is a random dictionary, too."
    places, seen, sparse = planted
    opened = [gate(drawn[20 + k], drawn[k:k + 20], 14.)['open'] for k in range(4)]
    for world in range(1, 11 if NIGHTLY else 1):
        seen = images_with_names(90, seed=world)[40:]
        own = filled([Differences(Matched(sparse, places, 1000 * world + k), NAMES, 32) for k in range(30)], seen)
        opened += [gate(own[20 + k], own[k:k + 20], 14.)['open'] for k in range(10)]
    noted('gate of random dictionaries', open=np.mean(opened), draws=len(opened))
    assert np.mean(opened) <= (.05 if NIGHTLY else .25)

def test_too_few_images_are_no_evidence(planted):
    places, seen, sparse = planted
    found, *_ = gate_of(sparse, places, seen[:6], NAMES, draws=2)
    assert not found['open'] and not np.isfinite(found['low']) and 'Too few' in verdict(found)

class Rule(Dictionary):
    "Directions with another activation."
    def __init__(self, activation, bias): self.activation, self.bias_of = activation, bias
    def directions(self, features, draw): return torch.randn(24, features.shape[1], generator=draw) / features.shape[1]**.5
    def with_atoms(self, features):
        self.bias = torch.linspace(*self.bias_of, 24)
        return self

@pytest.mark.parametrize('dictionary', [Rule('relu', (-1.5, .5)), Rule('sigmoid', (-2, 1)), SparseAutoencoder(24, 3, steps=30, batch=100)], ids=['relu', 'sigmoid', 'topk'])
def test_random_directions_are_active_as_often(dictionary, planted):
    places = planted[0]
    dictionary.fit(places)
    own, chance = dictionary.encode(places), Matched(dictionary, places).encode(places)
    assert own.shape == chance.shape and float((own - chance).abs().max()) > .1
    assert active_share(chance, dictionary.activation) == pytest.approx(active_share(own, dictionary.activation), abs=.02)

def test_overlaps_notice_wrong_labels(planted):
    "NeuronEval's checks; a difference of means does not notice labels that are missing."
    places, seen, sparse = planted
    found = {}
    for how, images in dict(labels=seen, missing=relabelled(seen, 'missing'), extra=relabelled(seen, 'extra')).items():
        differences, overlaps = filled([Differences(sparse, NAMES, 32), Overlaps(sparse, places, NAMES)], images)
        found[how] = {k: np.nanmean(v) for k, v in best_unit(overlaps).items()}
        found[how]['selectivity'] = float(selectivity(differences, EVERYTHING)[known_names(differences)].nanmean())
    for how in ('missing', 'extra'):
        assert all(found[how][k] < found['labels'][k] for k in ('iou', 'f1', 'auprc'))
    assert found['extra']['selectivity'] < .9 * found['labels']['selectivity']
    assert abs(found['missing']['selectivity'] / found['labels']['selectivity'] - 1) < .2

def test_overlaps_by_hand():
    "A unit that is a name, and its opposite."
    class Given:
        def encode(self, features): return features
    seen = images_with_names(40)
    images = []
    for i in seen:
        there = (i.masks & (i.names == 2)[:, None]).any(0).float()
        images.append(i._replace(features=torch.stack([there, 1 - there], 1)))
    found = best_unit(*filled([Overlaps(Given(), torch.tensor([[0., 1.]] * 98 + [[1., 0.]] * 2), NAMES)], images))
    assert found['iou'][2] == found['f1'][2] == pytest.approx(1) and found['auprc'][2] == pytest.approx(1)
    assert np.delete(found['iou'], 2).max() < .2

def test_stability_and_probe(planted):
    places, seen, sparse = planted
    x, labels, half = filled([LabelledPlaces(NAMES)], seen)[0].all()
    codes, random = sparse.encode(x), Matched(sparse, places).encode(x)
    assert agreement_of_units(codes, codes) == pytest.approx(1, abs=1e-4)
    assert agreement_of_units(codes, torch.randn(codes.shape)) < .2 < agreement_of_units(codes, random)
    own, channels = (probe_auc(c, labels, half).mean() for c in (codes, x))
    assert own > channels - .05 and probe_auc(torch.randn(codes.shape), labels, half).mean() == pytest.approx(.5, abs=.08)

def test_units_that_are_switched_off(planted, collapsed):
    weights, found = torch.rand(32, generator=torch.Generator().manual_seed(1)) + .5, []
    for _, seen, sparse in (planted, collapsed):
        def lift(image): return sparse.encode(image.features) * weights
        found.append(switch_off(*filled([Differences(sparse, NAMES, 32), Contrasts(lift, NAMES, 32)], seen)))
    own, axis = found
    assert own['share'] > .9 and own['low'] > .8 and own['pairs'] == NAMES * (NAMES - 1)
    assert own['random'] == pytest.approx(.5, abs=.1) and axis['share'] < .8

def test_pairs_that_share_cells_or_are_aliases_are_not_asked_about():
    contrasts = Contrasts(lambda image: image.features, 3, 2)
    one = images_with_names(1)[0]
    masks = torch.zeros(3, one.masks.shape[1], dtype=torch.bool)
    masks[0, :10] = masks[1, 4:14] = masks[2, 20:30] = True
    contrasts.add(one._replace(names=torch.arange(3), masks=masks, features=one.features[:, :2]))
    assert contrasts.apart().tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert not contrasts.apart([5, -1, 5])[0].any()

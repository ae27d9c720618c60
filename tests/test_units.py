"""Units with names: the gate opens for planted channels, stays shut on one axis and for random dictionaries.

Overlaps notice wrong labels; units that are switched off take their name's prediction.
"""
from types import SimpleNamespace
import numpy as np, pytest, torch
from nightly import NIGHTLY, noted
from planted import all_features, images_with_names, relabelled
from saliency_nb.dictionaries import Channels, Components, Dictionary, SparseAutoencoder
from saliency_nb.overlap import (LabelledPlaces, Overlaps, active_share, agreement_of_units, best_unit,
    effective_dimensions, probe_auc)
from saliency_nb.units import Contrasts, Differences, Matched, difference_weights, gate, gate_of, known_names
from saliency_nb.units import selectivity, share_at_random, switch_off, verdict

NAMES, EVERYTHING = 8, torch.ones(20)

def autoencoder(x, steps=400): return SparseAutoencoder(32, 4, steps=steps, batch=256, lr=3e-3).fit(x)

def filled(parts, seen):
    "Accumulators that have seen images."
    for image in seen:
        for part in parts: part.add(image)
    return parts

def learned(images, steps):
    "Places to learn from, images to test on, an autoencoder."
    places = all_features(images[:40])
    return SimpleNamespace(places=places, seen=images[40:], sparse=autoencoder(places, steps))

@pytest.fixture(scope='module')
def planted(): return learned(images_with_names(90), 400)

@pytest.fixture(scope='module')
def collapsed(): return learned(images_with_names(90, collapsed=True), 100)

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
    randoms = [Matched(planted.sparse, planted.places, k) for k in range(24)]
    return filled([Differences(r, NAMES, 32) for r in randoms], planted.seen)

def test_the_gate_is_open_for_planted_channels(planted, drawn):
    own, = filled([Differences(planted.sparse, NAMES, 32)], planted.seen)
    found = gate(own, drawn[:20], effective_dimensions(planted.places))
    assert found['open'] and found['low'] > .2 and found['names'] == NAMES
    assert verdict(found).startswith('Units go with names')

def gate_found(case, dictionary=None, images=None, draws=3):
    return gate_of(dictionary or case.sparse, case.places, case.seen[:images], NAMES, draws=draws)[0]

def test_the_gate_is_shut_on_one_axis(collapsed):
    found = gate_found(collapsed)
    assert not found['open'] and found['dimensions'] < 1.5 and 'one axis' in verdict(found)
    spread = effective_dimensions(torch.randn(5000, 32))
    assert effective_dimensions(collapsed.places) < spread / 10

@pytest.mark.parametrize('dictionary', [Channels(), Components(32)], ids=lambda d: type(d).__name__)
def test_the_gate_is_shut_for_mixtures(dictionary, planted):
    found = gate_found(planted, dictionary.fit(planted.places))
    assert not found['open'] and found['dimensions'] > 3 and 'not shown' in verdict(found)

def opens(dictionaries, k): return gate(dictionaries[20 + k], dictionaries[k:k + 20], 14.)['open']

def test_random_dictionaries_rarely_open_it(planted, drawn):
    "A world without the effect: what is asked about is a random dictionary, too."
    opened = [opens(drawn, k) for k in range(4)]
    for world in range(1, 11 if NIGHTLY else 1):
        randoms = [Matched(planted.sparse, planted.places, 1000 * world + k) for k in range(30)]
        seen = images_with_names(90, seed=world)[40:]
        own = filled([Differences(r, NAMES, 32) for r in randoms], seen)
        opened += [opens(own, k) for k in range(10)]
    noted('gate of random dictionaries', open=np.mean(opened), draws=len(opened))
    assert np.mean(opened) <= (.05 if NIGHTLY else .25)

def test_too_few_images_are_no_evidence(planted):
    found = gate_found(planted, images=6, draws=2)
    assert not found['open'] and not np.isfinite(found['low']) and 'Too few' in verdict(found)

class Rule(Dictionary):
    "Directions with another activation."
    def __init__(self, activation, bias): self.activation, self.bias_of = activation, bias
    def directions(self, features, draw):
        return torch.randn(24, features.shape[1], generator=draw) / features.shape[1]**.5
    def with_atoms(self, features):
        self.bias = torch.linspace(*self.bias_of, 24)
        return self

RULES = dict(
    relu=Rule('relu', (-1.5, .5)),
    sigmoid=Rule('sigmoid', (-2, 1)),
    topk=SparseAutoencoder(24, 3, steps=30, batch=100),
)

@pytest.mark.parametrize('dictionary', RULES.values(), ids=RULES)
def test_random_directions_are_active_as_often(dictionary, planted):
    places = planted.places
    dictionary.fit(places)
    own, chance = dictionary.encode(places), Matched(dictionary, places).encode(places)
    assert own.shape == chance.shape and float((own - chance).abs().max()) > .1
    shares = [active_share(codes, dictionary.activation) for codes in (own, chance)]
    assert shares[1] == pytest.approx(shares[0], abs=.02)

def by_labels(case, images):
    "What the best units of a case are worth on images with these labels."
    parts = Differences(case.sparse, NAMES, 32), Overlaps(case.sparse, case.places, NAMES)
    differences, overlaps = filled(parts, images)
    found = {k: np.nanmean(v) for k, v in best_unit(overlaps).items()}
    known = selectivity(differences, EVERYTHING)[known_names(differences)]
    return found | dict(selectivity=float(known.nanmean()))

def test_overlaps_notice_wrong_labels(planted):
    "NeuronEval's checks; a difference of means does not notice labels that are missing."
    right = by_labels(planted, planted.seen)
    missing, extra = (by_labels(planted, relabelled(planted.seen, how)) for how in ('missing', 'extra'))
    for k in ('iou', 'f1', 'auprc'): assert missing[k] < right[k] and extra[k] < right[k]
    assert extra['selectivity'] < .9 * right['selectivity']
    assert abs(missing['selectivity'] / right['selectivity'] - 1) < .2

def test_overlaps_by_hand():
    "A unit that is a name, and its opposite."
    class Given:
        def encode(self, features): return features
    images = []
    for i in images_with_names(40):
        there = (i.masks & (i.names == 2)[:, None]).any(0).float()
        images.append(i._replace(features=torch.stack([there, 1 - there], 1)))
    places = torch.tensor([[0., 1.]] * 98 + [[1., 0.]] * 2)
    found = best_unit(*filled([Overlaps(Given(), places, NAMES)], images))
    assert found['iou'][2] == found['f1'][2] == pytest.approx(1) and found['auprc'][2] == pytest.approx(1)
    assert np.delete(found['iou'], 2).max() < .2

def test_stability_and_probe(planted):
    labelled, = filled([LabelledPlaces(NAMES)], planted.seen)
    x, *known = labelled.all()
    codes, random = planted.sparse.encode(x), Matched(planted.sparse, planted.places).encode(x)
    noise = torch.randn(codes.shape)
    assert agreement_of_units(codes, codes) == pytest.approx(1, abs=1e-4)
    assert agreement_of_units(codes, noise) < .2 < agreement_of_units(codes, random)
    assert probe_auc(codes, *known).mean() > probe_auc(x, *known).mean() - .05
    assert probe_auc(torch.randn(codes.shape), *known).mean() == pytest.approx(.5, abs=.08)

def switched_off(case):
    weights = torch.rand(32, generator=torch.Generator().manual_seed(1)) + .5
    def lift(image): return case.sparse.encode(image.features) * weights
    parts = [Differences(case.sparse, NAMES, 32), Contrasts(lift, NAMES, 32)]
    return switch_off(*filled(parts, case.seen))

def test_units_that_are_switched_off(planted, collapsed):
    own, axis = switched_off(planted), switched_off(collapsed)
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
    assert share_at_random(contrasts, contrasts.apart(), draws=4) >= 0 # of two bases, fewer than three

"What should not produce a claim does not, what should does, and what cannot be compared is refused."
import cv2, numpy as np, pandas as pd, pytest, torch, xarray as xr
from scipy import ndimage
from nightly import NIGHTLY, noted
from saliency_nb.adjustment import Adjustment, fold_errors, freedom, object_design, solved, student_interval
from saliency_nb.bases import build_model
from saliency_nb.contributions import local_effect
from saliency_nb.controls import CLAIMS, beside_area, controls
from saliency_nb.core import ParameterError, rng
from saliency_nb.dissection import dissect
from saliency_nb.fixations import SaliencyDataset, read_salicon
from saliency_nb.regions import BoxRegions
from saliency_nb.scene_graphs import gqa_regions
from saliency_nb.thresholds import adaptive_thresholds
from saliency_nb.calibration import calibrate, logit_maps
from saliency_nb.uncertainty import generated_population, sampled
from saliency_nb.world import STUFF, THINGS, log_density, make_world, named_boxes, random_weights, sample_scene

NAMES = [f's{c:02d}' for c in range(20)]

def contrasts_of(truth, noise, seed, images=60):
    "An alignment with given contrasts, nats, and noise from image to image; each image is a fold."
    values = truth[:, None] + noise * rng(seed, 'contrasts').normal(size=(len(truth), images))
    counts = np.ones(values.shape, int)
    return xr.Dataset(dict(fold_contrast=(('semantic', 'fold'), values), fold_count=(('semantic', 'fold'), counts)), dict(semantic=NAMES[:len(truth)]))

def adjusted_of(truth, noise, seed, separating=100, data='probe'):
    "Adjusted effects with given values, nats, as from `solved`."
    g = rng(seed, 'adjusted')
    influence = noise / 10 * g.normal(size=(len(truth), 100)) # a standard error of `noise`
    count = np.broadcast_to(separating, len(truth))
    low, high, _ = student_interval(truth, fold_errors(influence), freedom(count))
    per_name = dict(effect=truth, low=low, high=high, separating=count, count=count)
    found = {k: ('semantic', np.asarray(v, float)) for k, v in per_name.items()} | dict(influence=(('semantic', 'fold'), influence))
    return xr.Dataset(found, dict(semantic=NAMES[:len(truth)]), dict(data=data))

TRUTH = np.r_[np.linspace(.8, 2, 6), -np.linspace(.8, 2, 6), np.zeros(8)]

# what is refused

@pytest.mark.parametrize('claim', ['anything', 'Adjusted', '', None])
def test_an_unknown_claim_is_refused(claim):
    with pytest.raises(ParameterError, match='contrast, local, adjusted, contribution'):
        controls(contrasts_of(TRUTH, .1, 0), claim, adjustment=adjusted_of(TRUTH, .1, 0))

def test_controls_of_other_images_are_refused():
    model = adjusted_of(TRUTH, .1, 0)
    others = dict(data=adjusted_of(TRUTH, .1, 1, data='another probe'), count=adjusted_of(TRUTH, .1, 1, separating=99))
    for other in others.values():
        with pytest.raises(ParameterError, match='other images|different images'): controls(None, 'adjusted', adjustment=model, untrained=other)
    first, second = (contrasts_of(TRUTH, .1, 0).assign_attrs(data=k) for k in ('probe', 'another probe'))
    with pytest.raises(ParameterError, match="'untrained'.*other images"): controls(first, untrained=second)
    with pytest.raises(ParameterError, match='different images'): controls(first, untrained=contrasts_of(TRUTH, .1, 0, images=59).assign_attrs(data='probe'))

def test_controls_with_other_names_are_refused():
    with pytest.raises(ParameterError, match="'untrained'.* s18"): controls(contrasts_of(TRUTH, .1, 0), untrained=contrasts_of(TRUTH[:18], .1, 0))
    with pytest.raises(ParameterError, match="'untrained'.* s18"): controls(None, 'adjusted', adjustment=adjusted_of(TRUTH, .1, 0), untrained=adjusted_of(TRUTH[:18], .1, 0))

@pytest.mark.parametrize('claim', [k for k, needed in CLAIMS.items() if needed])
def test_what_a_claim_needs_is_said(claim):
    lacking = contrasts_of(TRUTH, .1, 0).drop_vars(CLAIMS[claim][0], errors='ignore')
    with pytest.raises(ParameterError, match=CLAIMS[claim][0]): controls(lacking, claim, adjustment=lacking)
    with pytest.raises(ParameterError, match=f"'{claim}' needs"): controls(lacking, claim)

def test_published_contributions_have_no_control_networks():
    a = sampled(generated_population(3, images=300), np.arange(300))
    with pytest.raises(ParameterError, match='random names'): controls(a, 'contribution', untrained=a)
    found = controls(a, 'contribution')
    assert list(found) == ['contribution', 'low', 'high', 'random names', 'not_beaten']

# what passes, and what does not

def test_no_interval_no_claim():
    separating = np.r_[np.full(10, 7.), np.full(10, 100.)]
    found = controls(None, 'adjusted', adjustment=adjusted_of(TRUTH, .01, 0, separating), flat=adjusted_of(0 * TRUTH, .01, 1, separating)).sort_index()
    assert found.low[:10].isna().all() and (found.not_beaten[:10] == 'no interval').all() and (found.not_beaten[10:12] == '').all()

def test_without_controls_a_claim_still_has_to_be_one():
    found = controls(contrasts_of(TRUTH, .5, 0)).sort_index()
    assert (found.not_beaten[:12] == '').all() and set(found.not_beaten) == {'', 'zero'}
    found = controls(None, 'adjusted', adjustment=adjusted_of(TRUTH, .2, 0)).sort_index()
    assert (found.not_beaten[:12] == '').all() and (found.not_beaten[12:] == 'zero').all()

def test_true_claims_beat_flat_networks_and_false_ones_do_not():
    "Ten worlds: a network that knows, beside one that knows next to nothing, and position."
    true, false = [], []
    for seed in range(10):
        knows, flat = contrasts_of(TRUTH, .8, seed), contrasts_of(.05 * rng(seed, 'flat').normal(size=20), .1, seed + 100)
        place = .1 * contrasts_of(TRUTH, .8, seed + 200).fold_contrast
        passed = (controls(knows.assign(fold_position=place), untrained=flat).not_beaten == '').sort_index().to_numpy()
        true += list(passed[:12])
        false += list(passed[12:])
    assert np.mean(true) >= .9 and np.mean(false) <= .05, (np.mean(true), np.mean(false))

def test_a_network_does_not_beat_itself_or_a_louder_one():
    a = sampled(generated_population(3, images=1200), np.arange(900))
    sure = lambda t: ~t.not_beaten.isin(['zero', 'no interval'])
    for name, times in (('itself', 1.), ('louder', 1.5), ('opposite', -1.)):
        found = controls(a, **{name: a.assign(fold_contrast=times * a.fold_contrast)})
        assert sure(found).sum() > 5 and (found.not_beaten[sure(found)] == ('' if times < 0 else name)).all()

def test_the_adjusted_difference_is_paired():
    "A control that shares the images' noise is beaten by a difference that is smaller than the noise."
    model = adjusted_of(TRUTH, .4, 0)
    quieter = model.assign(effect=.8 * model.effect, influence=.8 * model.influence)
    found = controls(None, 'adjusted', adjustment=model, quieter=quieter).sort_index()
    large = abs(TRUTH) > 1.5
    assert (found.not_beaten[large] == '').all() and (found.adjusted - found.quieter).abs()[large].max() <= .4
    itself = controls(None, 'adjusted', adjustment=model, itself=model).sort_index()
    assert (itself.not_beaten[large] == 'itself').all() and (itself.not_beaten != '').all()

# ten worlds

GRID, SIZE, SELECT = (24, 32), (96, 128), 10

def drawn_weights(seed, zeros=8):
    "Planted weights, eight of which are zero; those of objects have mean zero, because a density has no level."
    weights, g = random_weights(seed), rng(seed, 'zeros')
    zero = [*g.choice(STUFF, 2, False), *g.choice(THINGS, 4, False), *g.choice(('red', 'blue', 'yellow'), 2, False)]
    rest = [s for s in STUFF + THINGS if s not in zero]
    level = np.mean([weights[s] for s in rest])
    return weights | {s: weights[s] - level for s in rest} | dict.fromkeys(zero, 0.)

def boxed(scenes, names):
    "Their boxes as regions."
    found = BoxRegions(dict.fromkeys(scenes), sorted(names), [])
    found.boxes, (height, width) = {}, SIZE
    for i, s in scenes.items():
        named, boxes = zip(*named_boxes(s))
        x, y, w, h = np.array(boxes, float).T
        rows = np.array([found.semantics.index(n) for n in named])
        found.boxes[i] = rows, np.stack([x / width, y / height, (x + w) / width, (y + h) / height], 1)
    return found

def rough(g, images): # standard deviation 1
    v = ndimage.gaussian_filter(g.normal(size=(images, *GRID)), (0, 3, 3))
    return v / v.std((1, 2), keepdims=True)

def simulated(true, seed, number):
    "Logits of a network that knows, of an untrained one, and of one that knows where people look in other images."
    g, usual = rng(seed, 'networks', number), np.log(np.exp(true).mean(0))
    noise = [rough(g, len(true)) for _ in range(3)]
    return dict(trained=.8 * true + .6 * noise[0], untrained=.01 * noise[1], shuffled=usual + .6 * noise[2])

def fitted(logits, true, seed):
    "The same in nats: tau from fixations on the first ten images."
    g, seen = rng(seed, 'fixations'), np.exp(true[:SELECT])
    fixations = np.stack([g.multinomial(150, p.ravel() / p.sum()).reshape(GRID) for p in seen])
    tau = {k: calibrate(torch.from_numpy(z[:SELECT]), torch.from_numpy(fixations))['tau'] for k, z in logits.items()}
    return {k: tau[k] * z[SELECT:] for k, z in logits.items()}

def adjusted_together(regions, maps):
    "`adjusted` for several sets of maps: an image's objects are found once."
    totals = {k: Adjustment(regions, 1) for k in maps}
    usual = {k: v.sum(0).ravel() for k, v in maps.items()}
    for total in totals.values(): total.inside = set(regions.ids)
    for b, i in enumerate(regions.ids):
        design, cells = object_design(regions, i, GRID)
        for k, total in totals.items():
            own, others = (cells @ v for v in (maps[k][b].ravel(), usual[k]))
            total.add_objects(i, design, dict(lift=own[:, None]), dict(lift=others[:, None]))
    return {k: solved(total) for k, total in totals.items()}

def claims_of_a_world(seed, images, networks):
    "Claims of some networks on one world: planted weight, and whether it passes."
    weights = drawn_weights(seed)
    scenes = {f'scene {i}': sample_scene(seed, i, SIZE) for i in range(SELECT + images)}
    true = np.stack([cv2.resize(log_density(s, weights).astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA) for s in scenes.values()])
    regions = boxed(dict(list(scenes.items())[SELECT:]), weights)
    maps = {(n, k): v for n in range(networks) for k, v in fitted(simulated(true, seed, n), true, seed).items()}
    found = adjusted_together(regions, maps)
    for n in range(networks):
        by_itself = {k: found[n, k] for k in ('trained', 'untrained', 'shuffled')}
        claims = controls(None, 'adjusted', adjustment=by_itself.pop('trained'), **by_itself)
        yield claims.assign(planted=pd.Series(weights)[claims.index], right=lambda t: (t.not_beaten == '') & (t.adjusted * t.planted >= 0))

def test_strong_names_pass_and_names_without_weight_do_not():
    "Ten worlds pooled, the adjusted effect, no training: tau from fixations, controls paired over images."
    images, networks = (300, 5) if NIGHTLY else (50, 1)
    claims = pd.concat([t for seed in range(300, 310) for t in claims_of_a_world(seed, images, networks)])
    strong, zero = claims[claims.planted.abs() >= .8], claims[claims.planted == 0]
    passed = (zero.not_beaten == '').mean()
    noted('controls, adjusted effect, ten worlds', images=images, strong=len(strong), strong_pass=strong.right.mean(), zero=len(zero), zero_pass=passed)
    assert strong.right.mean() >= .9 and passed <= .05, (strong.right.mean(), passed)
    assert len(strong) >= 30 and len(zero) >= 70

# an untrained network

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('controls')/'world', n_images=40, size=(96, 128), seed=0)

def test_the_local_part_of_an_untrained_network_is_small(world):
    "In nats; in units of the logit's own spread the same networks seem to know something."
    size, largest, spread = (96, 128), [], []
    select, train = (SaliencyDataset(read_salicon(world, split), size) for split in ('val', 'train'))
    regions = gqa_regions(world/'scene_graphs.json', world/'images', min_images=5)
    for seed in range(10 if NIGHTLY else 2):
        torch.manual_seed(seed)
        model = build_model('dinet', n_bases=16, backbone='squeezenet1_0', width=8).to_phase2().eval()
        z, fixations = logit_maps(model, select)
        tau = calibrate(z, fixations)['tau']
        alignment = dissect(model, regions, adaptive_thresholds(model, train), size, tau=tau)
        largest.append(float(abs(local_effect(alignment).effect).max()))
        spread.append(largest[-1] / abs(tau) / float(z.std()))
    noted('local part of the contrast, untrained networks', networks=len(largest), largest_nats=max(largest), in_own_spread=max(spread))
    assert max(largest) < .15 < max(spread) and np.isfinite(largest).all()

# area

def test_area_that_says_it_all_leaves_nothing():
    "Claims and truth that know the area only, and claims that know the truth, too: 12 and 19 names."
    for names in (12, 19):
        held, right = [], []
        for seed in range(1000 if NIGHTLY else 60):
            g = rng(seed, 'area', names)
            area, own, other, shared = pd.DataFrame(g.normal(size=(names, 4))).to_numpy().T
            claims = pd.DataFrame(dict(size_only=other - area, knows=.5 * other + 1.2 * shared - area))
            found = beside_area(claims, pd.Series(area), pd.Series(.5 * own + 1.2 * shared - area))
            size_only = beside_area(claims[['size_only']], pd.Series(area), pd.Series(own - area)).loc['size_only']
            held.append(size_only.given_low <= 0 <= size_only.given_high)
            right.append(found.given_low['knows'] > 0)
        noted(f'agreement given area, {names} names', nothing_left=np.mean(held), found=np.mean(right))
        assert .92 - .05 * (not NIGHTLY) <= np.mean(held) and np.mean(right) > .6

def test_partial_rank_correlation_by_hand():
    g = rng(0, 'partial')
    claims, area, truth = pd.DataFrame(dict(c=g.normal(size=15))), pd.Series(g.random(15)), pd.Series(g.normal(size=15))
    ranks = pd.DataFrame(dict(c=claims.c, area=area, truth=truth)).rank()
    left = {k: ranks[k] - np.polyval(np.polyfit(ranks.area, ranks[k], 1), ranks.area) for k in ('c', 'truth')}
    row = beside_area(claims, np.log(area), truth).loc['c']
    assert np.isclose(row.given_area, np.corrcoef(left['c'], left['truth'])[0, 1]) and row.given_low < row.given_area < row.given_high
    assert np.isclose(row.area, claims.c.corr(area, 'spearman')) and row.names == 15

def test_too_few_names_for_a_covariate():
    few = pd.Series([1., 2., 3., 4., 5.])
    with pytest.raises(ParameterError, match='only 5 names'): beside_area(pd.DataFrame(dict(c=few)), few, few)

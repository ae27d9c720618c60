"Interventions and adjusted effects on cases whose answer is known."
from types import SimpleNamespace
import cv2, numpy as np, pandas as pd, pytest, torch
from populations import generated_population, sampled
from saliency_nb import adjustment
from saliency_nb.adjustment import (Adjustment, adjusted, adjusted_contrasts, jackknife,
                                    named_objects, normal_equations, object_design, solved)
from saliency_nb.bases import build_model
from saliency_nb.uncertainty import contrast_differences, effect_differences
from saliency_nb.core import ParameterError, read_json, rng
from saliency_nb.dissection import dissect
from saliency_nb.fixations import SaliencyDataset, read_salicon
from saliency_nb.image_figures import basis_maps
from saliency_nb.interventions import (covered_up, edits, intervene, moved_mask, names_gone,
                                       photograph_effects, predicted_changes, visible)
from saliency_nb.pictures import read_image
from saliency_nb.regions import BoxRegions, Regions
from saliency_nb.scene_graphs import gqa_regions
from saliency_nb.thresholds import adaptive_thresholds
from saliency_nb.world import log_density, make_world, render, sample_scene, scene_masks

GRID = 16, 20
EFFECTS = pd.Series(dict(face=1., nose=.5, tree=-.7, car=.2))
def rectangle(size, x, y, w, h):
    mask = np.zeros(size, bool)
    mask[y:y + h, x:x + w] = True
    return mask

class Drawn(Regions):
    "Masks on a grid; a nose is always inside a face, and some places have no name."
    def __init__(self, n=60):
        super().__init__({str(i): None for i in range(n)}, list(EFFECTS.index), [])
        self.made = {str(i): self.draw(rng(0, 'drawn', i)) for i in range(n)}
    def draw(self, g):
        masks = {}
        for name in g.permutation(['face', 'tree', 'car'])[:g.integers(1, 4)]:
            y, x = g.integers(0, 10), g.integers(0, 14)
            masks[name] = rectangle(GRID, x, y, 5, 5)
            if name == 'face' and g.random() < .6: masks['nose'] = masks[name].copy()
        return masks
    def masks(self, image, grid):
        names = sorted(self.made[image])
        return names, np.stack([self.made[image][n] for n in names])

def drawn_map(regions, image, named=2., center=-1.5):
    "A map in which the additive model is exact."
    y, x = ((np.arange(k) + .5) / k * 2 - 1 for k in GRID)
    names, masks = named_objects(regions, image, GRID)
    cells = (y[:, None]**2 + x**2) / 2 * center + rng(1, image).normal() * 3 # a level of its own
    effects = EFFECTS[regions.semantics].values
    for n, m in zip(names, masks): cells = cells + m * (n @ effects + named * n.any())
    return cells[None]

def drawn_maps(regions, **options):
    return {i: drawn_map(regions, i, **options) for i in regions.ids}

def noisy_maps(regions, g, noise=1.):
    return {i: m + g.normal(0, noise, (1, *GRID)) for i, m in drawn_maps(regions).items()}

def test_additive_model_is_recovered_with_nested_names(monkeypatch):
    monkeypatch.setattr(adjustment, 'RIDGE', 1e-9)
    regions = Drawn()
    found = adjusted(drawn_maps(regions, center=0).items(), regions)
    assert np.allclose(found.adjusted[0].to_series()[EFFECTS.index], EFFECTS, atol=1e-5)
    assert np.isclose(found.named[0], 2, atol=1e-5)
    assert np.isclose(found.place[0], 0, atol=1e-5) and np.isclose(found['size'][0], 0, atol=1e-5)

def test_a_usual_map_of_sixty_images_is_not_exact(monkeypatch):
    monkeypatch.setattr(adjustment, 'RIDGE', 1e-9)
    regions = Drawn()
    found = adjusted(drawn_maps(regions).items(), regions)
    assert np.allclose(found.adjusted[0].to_series()[EFFECTS.index], EFFECTS, atol=.15)
    assert found.place[0] > .5

def total_of(regions, maps, usual=None):
    "Sums of some images; the usual map, like the network, is given."
    total = Adjustment(regions, 1)
    total.images = 1
    usual = dict(lift=torch.from_numpy(np.zeros((1, *GRID)) if usual is None else usual))
    for i, m in maps.items(): total.add_maps([i], dict(lift=torch.from_numpy(m)[None]), usual)
    return total
def contrast(cells, mask): return cells[mask].mean() - cells[~mask].mean()

def test_plain_contrast_of_the_same_maps_is_mixed():
    regions, inside = Drawn(), []
    for i, y in drawn_maps(regions).items():
        masks = dict(zip(*regions.masks(i, GRID)))
        if 'nose' in masks: inside.append(contrast(y[0], masks['nose']))
    assert np.mean(inside) > 2 # face + nose + being named, not .5

def test_bases_sum_and_order_does_not_matter():
    regions, g = Drawn(), rng(0, 'split')
    maps = {i: g.normal(size=(4, *GRID)) for i in regions.ids}
    sums = {i: m.sum(0, keepdims=True) for i, m in maps.items()}
    by_basis, summed = adjusted(maps.items(), regions), adjusted(sums.items(), regions)
    backwards = adjusted(reversed(maps.items()), regions)
    assert np.allclose(by_basis.adjusted.sum('basis'), summed.adjusted[0])
    assert np.allclose(by_basis.adjusted, backwards.adjusted)

def test_influence_is_what_leaving_an_image_out_does():
    "The jackknife without fitting again, against fitting again."
    regions = Drawn(30)
    maps = noisy_maps(regions, rng(0, 'noise'), .5)
    usual = np.mean(list(maps.values()), 0)
    total = total_of(regions, maps, usual)
    left, ridge = normal_equations(total.arrays())[1:]
    inverse = np.linalg.inv(left + ridge)
    effect = inverse @ total.sums['right'].numpy()[:, 0]
    assert np.allclose(effect[:-3], solved(total).effect)
    for left_out in regions.ids[:5]:
        rest = total_of(regions, {i: m for i, m in maps.items() if i != left_out}, usual)
        left = rest.sums['left'].numpy().sum(0) + ridge # the ridge as it was
        again = np.linalg.inv(left) @ rest.sums['right'].numpy()[:, 0]
        change = jackknife([o for o in total.objects if o[0] == left_out], inverse, effect).sum(1)
        assert np.allclose(effect - change, again, atol=1e-9)

def test_sums_of_parts_are_the_whole():
    regions = Drawn()
    maps = noisy_maps(regions, rng(0, 'parts'))
    halves = [total_of(regions, dict(list(maps.items())[k::2])).state() for k in range(2)]
    merged = solved(Adjustment(regions, 1).merge(halves[0]).merge(halves[1]))
    whole = solved(total_of(regions, maps))
    for k in whole.data_vars: assert np.allclose(merged[k], whole[k], equal_nan=True), k

def test_objects_partition_the_grid_and_the_smaller_box_is_in_front():
    regions = BoxRegions({'a': None}, ['face', 'sky', 'smiling'], [])
    boxes = np.array([[0, 0, 1, 1], [.2, .2, .6, .6], [.2, .2, .6, .6]])
    regions.boxes = {'a': (np.array([1, 0, 2]), boxes)}
    names, masks = named_objects(regions, 'a', (10, 10))
    assert (masks.sum(0) == 1).all() and sorted(names.tolist()) == [[False, True, False], [True, False, True]]
    face = masks[names[:, 0]][0]
    assert face[2:6, 2:6].all() and face.sum() == 16
    design, cells = object_design(regions, 'a', (10, 10))
    assert np.allclose(cells.sum(1), 1) and (cells[:, face.ravel()].sum(1) > 0).sum() == 1

def test_an_image_without_regions_adds_nothing():
    regions = Drawn()
    maps = noisy_maps(regions, rng(0, 'empty'))
    before = solved(total_of(regions, maps))
    nothing = [], np.zeros((0, *GRID), bool)
    regions.made['empty'], drawn = {}, regions.masks
    regions.masks = lambda image, grid: nothing if image == 'empty' else drawn(image, grid)
    names, masks = named_objects(regions, 'empty', GRID)
    assert masks.all() and not names.any()
    after = solved(total_of(regions, maps | dict(empty=maps['0'])))
    assert np.allclose(after.effect, before.effect) and np.allclose(after.low, before.low, atol=1e-3)

def test_nothing_to_compare_is_an_error():
    regions = BoxRegions({'a': None}, ['sky'], [])
    regions.boxes = {'a': (np.array([0]), np.array([[0., 0., 1., 1.]]))}
    maps = [('a', np.zeros((1, 8, 8)))]
    with pytest.raises(ParameterError, match='nothing to compare'): adjusted(maps, regions)

@pytest.mark.parametrize('number', range(6))
def test_an_edit_changes_the_scene_only_where_the_part_was(number):
    scene, kinds = sample_scene(3, number, (96, 128)), set()
    before = render(scene)
    for i, semantic, kind, edited in edits(scene, rng(0, 'edit', number)):
        kinds.add(kind)
        where = visible(scene, i)
        changed, allowed = (render(edited) != before).any(-1), where.copy()
        if kind == 'dropped': # without its colour a flower may have other petals
            allowed |= rectangle(allowed.shape, *scene['parts'][i]['box'])
        assert not changed[~allowed].any() and (changed.any() or not where.any())
        gone = names_gone(scene_masks(scene), scene_masks(edited), where)
        if where.any(): assert np.isclose(gone[semantic], 1)
    assert {'left out', 'replaced'} <= kinds

def planted():
    "A weight for each name; grounds have none."
    names = ('face', 'text', 'dog', 'car', 'ball', 'tree', 'house', 'flower', 'red', 'blue', 'yellow',
             'smiling', 'cloudy')
    grounds = dict.fromkeys(('sky', 'grass', 'road', 'wall', 'water', 'sand'), 0.)
    return grounds | {s: k * .3 - 1 for k, s in enumerate(names)}

def test_planted_weights_predict_the_change_of_the_true_log_density():
    scene, weights = sample_scene(3, 1, (96, 128)), planted()
    for i, _, _, edited in edits(scene, rng(0, 'edit')):
        where = visible(scene, i)
        if not where.any(): continue
        gone = names_gone(scene_masks(scene), scene_masks(edited), where)
        row = pd.DataFrame([{f'gone {s}': v for s, v in gone.items()}])
        true = (log_density(scene, weights) - log_density(edited, weights))[where].mean()
        assert np.isclose(predicted_changes(row, pd.Series(weights))[0], true)
    assert predicted_changes(row, pd.Series(dict(moon=1.))).isna().all() # an effect that is not known

@pytest.fixture(scope='module')
def case(tmp_path_factory):
    root, size = tmp_path_factory.mktemp('interventions')/'world', (96, 128)
    make_world(root, n_images=16, size=size, seed=4)
    torch.manual_seed(0)
    model = build_model('dinet', n_bases=12, backbone='squeezenet1_0', width=8, phase=2).eval()
    regions = gqa_regions(root/'scene_graphs.json', root/'images', min_images=3)
    thresholds = adaptive_thresholds(model, SaliencyDataset(read_salicon(root, 'train'), size))
    alignment, scenes = dissect(model, regions, thresholds, size), read_json(root/'scenes.json')
    return SimpleNamespace(model=model, regions=regions, alignment=alignment, size=size, scenes=scenes)

def test_adjusted_contrasts_of_a_model_sum_to_that_of_its_logit(case):
    found = adjusted_contrasts(case.model, case.regions, case.size, batch=3)
    def logit(i): return basis_maps(case.model, read_image(case.regions.image_path(i), case.size))[1].sum(0)
    total = adjusted(((i, logit(i).double().numpy()[None]) for i in case.regions.ids), case.regions)
    assert np.allclose(found.adjusted.sum('basis'), total.adjusted[0], atol=1e-6)
    assert set(found.semantic.values) == set(case.alignment.semantic.values)

def test_a_model_that_sees_nothing_loses_nothing(case):
    blind = build_model('dinet', n_bases=4, backbone='squeezenet1_0', width=8, phase=2).eval()
    with torch.no_grad(): blind.readout.weight.zero_()
    some = {i: case.scenes[i] for i in list(case.scenes)[:3]}
    assert (intervene(blind, some, case.size).measured == 0).all()
    assert intervene(case.model, some, case.size).measured.abs().max() > 0

def test_a_control_has_the_same_shape_and_touches_nothing_named():
    for k in range(20):
        g = rng(k, 'moved')
        free = g.random((60, 80)) < .999
        y, x = g.integers(0, 30), g.integers(0, 50)
        h, w = g.integers(4, 15, 2)
        mask = np.zeros((60, 80), bool)
        mask[y:y + h, x:x + w] = g.random((h, w)) < .7
        mask[y, x] = True
        moved = moved_mask(mask, free & ~mask)
        if moved is None: continue
        shift = np.argwhere(moved)[0] - np.argwhere(mask)[0]
        assert (np.argwhere(moved) - shift == np.argwhere(mask)).all()
        assert not (moved & (mask | ~free)).any()
    assert moved_mask(np.ones((5, 5), bool), np.zeros((5, 5), bool)) is None

def test_covering_up_leaves_the_rest_alone():
    rgb = rng(0, 'rgb').integers(0, 255, (60, 80, 3)).astype(np.uint8)
    mask = rectangle((60, 80), 30, 20, 20, 10)
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    for how in ('inpaint', 'blur'):
        hidden = covered_up(rgb, mask, how)
        assert (hidden[~wide] == rgb[~wide]).all() and hidden[mask].std() < rgb[mask].std()
    with pytest.raises(ParameterError, match='erase'): covered_up(rgb, mask, 'erase')

def test_photographs_get_a_row_per_region(case):
    few = case.regions.subset(case.regions.ids[:2])
    table = photograph_effects(case.model, few, case.size, how='blur')
    assert len(table) == sum(len(few.masks(i, case.size)[0]) for i in few.ids)
    assert table.lost.notna().all()

def own_effects(regions, seed):
    "Effects of the names for each image and each of two models; on average there are none."
    g = rng(seed, 'differences')
    return {i: g.normal(size=(2, len(EFFECTS))) * .4 for i in regions.ids}

def differing(regions, own, which, more=0.):
    "Maps of one of two models whose names have effects of their own; a car adds more."
    car = np.array(regions.semantics) == 'car'
    for i, y in drawn_maps(regions).items():
        for n, m in zip(*named_objects(regions, i, GRID)): y = y + m * (n @ (own[i][which] + more * car))
        yield i, y

def test_differences_of_adjusted_contrasts_hold():
    "Two models on the same images that agree on average: hardly ever a difference."
    regions, wrong = Drawn(), []
    for r in range(40):
        own = own_effects(regions, r)
        first, second = (adjusted(differing(regions, own, which), regions) for which in range(2))
        d = effect_differences(first, second)
        wrong += [*((d.low > 0) | (d.high < 0))]
    assert .01 < np.mean(wrong) < .1 # nominal 5%

def test_differences_of_adjusted_contrasts_find():
    "Two models on the same images: where one name adds more in one of them, that name."
    regions = Drawn()
    own = own_effects(regions, 0)
    first = adjusted(differing(regions, own, 0), regions)
    other = adjusted(differing(regions, own, 1, .6), regions)
    same, changed = effect_differences(first, first), effect_differences(first, other)
    assert (same[['difference', 'low', 'high']] == 0).all(axis=None)
    assert 'q_value' not in same # single trainings
    assert changed.difference.idxmin() == 'car' and changed.high['car'] < 0
    half = adjusted(list(differing(regions, own, 1))[:30], regions)
    with pytest.raises(ParameterError, match='different images'): effect_differences(first, half)

def test_differences_of_contrasts_by_folds():
    "Where single images were not kept, folds of the same data take their place; of other data they must not."
    a = sampled(generated_population(1), np.arange(300)).assign_attrs(data='these')
    noise = rng(0, 'other').normal(size=a.fold_contrast.shape) * a.fold_count
    b = a.assign(fold_contrast=a.fold_contrast + noise)
    d = contrast_differences(a, b)
    assert 'image_contrast' not in a and set(d.index) == set(a.semantic.values)
    wanted = (a.fold_contrast - b.fold_contrast).sum('fold') / a.fold_count.sum('fold')
    assert np.allclose(d.difference[a.semantic.values], wanted)
    other = b.assign_attrs(data='others')
    with pytest.raises(ParameterError, match='different images'): contrast_differences(a, other)

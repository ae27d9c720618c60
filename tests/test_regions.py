"""Rasterisation against a brute-force oracle; every kind of broken region file, strict and lenient.

Only formats that need no real data.
"""
import json, os, subprocess, sys
from fractions import Fraction
from pathlib import Path
import cv2, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from matplotlib.path import Path as Outline
from pycocotools import mask as rle
from scipy.io import savemat
from saliency_nb.core import DataError, ParameterError, Problems
from saliency_nb.outlines import run_lengths, segment_rle
from saliency_nb.regions import BoxRegions, box_coverage, covered, mask_coverage, osie_regions
from saliency_nb.coco import InstanceRegions, coco_regions
from saliency_nb.scene_graphs import gqa_regions
from saliency_nb.region_readers import mask_regions, read_regions, vg_regions
from saliency_nb.vocabulary import (category, coco_index, make_vocabulary, object_name, read_vocabulary,
                                    table, uncategorised, write_vocabulary)

ROOT = Path(__file__).parent.parent
VOCAB = ROOT.parent/'shared/data/vocab'

# ---- rasterisation

def counted(mask, grid):
    "Every pixel as h x w points, every cell the mean of its H x W points."
    (H, W), (h, w) = mask.shape, grid
    return np.repeat(np.repeat(mask, h, 0), w, 1).reshape(h, H, w, W).mean((1, 3))

def shares_of_cells(low, high, side, cells):
    "Exact share of each of so many cells that pixels low to high of a side cover."
    low, high = (Fraction(min(max(v, 0), side), side) * cells for v in (low, high))
    return [max(Fraction(0), min(high, k + 1) - max(low, k)) for k in range(cells)]

side, cells = st.integers(1, 24), st.integers(1, 30)
grids = st.tuples(cells, cells)
BOX = st.tuples(*[st.integers(-4, 28)] * 4)

@given(st.lists(BOX, min_size=1, max_size=5), st.tuples(st.integers(4, 24), st.integers(4, 24)), grids)
@settings(max_examples=60, deadline=None)
def test_boxes_agree_with_exact_fractions(boxes, size, grid):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes])
    shares = np.clip(boxes / np.tile(size[::-1], 2), 0, 1)
    for box, got in zip(boxes.tolist(), box_coverage(shares, grid)):
        across = shares_of_cells(box[0], box[2], size[1], grid[1])
        down = shares_of_cells(box[1], box[3], size[0], grid[0])
        assert np.allclose(got, np.outer(down, across).astype(float), atol=1e-9)

def drawn_mask(data, size):
    n = size[0] * size[1]
    return np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))).reshape(size)

@given(st.data(), st.tuples(side, side), grids)
@settings(max_examples=60, deadline=None)
def test_masks_agree_with_counting(data, size, grid):
    mask = drawn_mask(data, size)
    assert np.allclose(mask_coverage(mask, grid), counted(mask, grid), atol=1e-5)
    flipped = mask_coverage(mask[:, ::-1], grid)[:, ::-1] # flipping mask and grid together changes nothing
    assert np.allclose(flipped, counted(mask, grid), atol=1e-5)

@given(st.data(), st.tuples(side, side), grids)
@settings(max_examples=40, deadline=None)
def test_run_lengths_agree_with_counting(data, size, grid):
    mask = drawn_mask(data, size)
    packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    column = mask.ravel('F')
    starts = np.flatnonzero(np.diff(np.r_[False, column, not column[-1]]))
    truth = np.diff(np.r_[0, starts]).tolist()
    assert run_lengths(packed['counts']) == truth
    regions = InstanceRegions({'i': ''}, ['thing'], ['f'], rule=.3)
    on = counted(mask, grid) > .3
    if np.abs(counted(mask, grid) - .3).min() < 1e-4: return # a cell exactly at the cut: float32 decides
    text = packed['counts'].decode()
    for segment in (packed, packed | dict(counts=text), dict(size=list(size), counts=truth)):
        regions.segments = {'i': (size, [('thing', segment)])}
        names, masks = regions.masks('i', grid)
        assert (masks[0] == on).all() if on.any() else names == []

def distances(points, corners):
    "Of each point from a polygon's outline."
    a, side = corners, np.roll(corners, -1, 0) - corners
    along = ((points[:, None] - a) * side).sum(-1) / np.maximum((side * side).sum(-1), 1e-12)
    nearest = a + np.clip(along, 0, 1)[..., None] * side
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(1)

SPOKE = st.tuples(st.floats(0, 6.28), st.floats(3, 18)) # angle, length

@given(st.lists(SPOKE, min_size=3, max_size=9, unique_by=lambda p: round(p[0], 1)), grids)
@settings(max_examples=60, deadline=None)
def test_polygons_agree_with_points_inside(spokes, grid):
    """Beyond one pixel from its outline a polygon's mask is that of the pixel centres inside.

    Its cells then are counted from the mask.
    """
    size = 40, 44
    corners = np.array([(22 + r * np.cos(a), 20 + r * np.sin(a)) for a, r in sorted(spokes)])
    mask = rle.decode(segment_rle([corners.ravel().tolist()], size)).astype(bool)
    centres = np.argwhere(np.ones(size))[:, ::-1] + .5
    far = (distances(centres, corners) > 1).reshape(size)
    inside = Outline(np.r_[corners, corners[:1]], closed=True).contains_points(centres).reshape(size)
    assert (mask == inside)[far].all()
    assert np.allclose(mask_coverage(mask, grid), counted(mask, grid), atol=1e-5)

@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
@settings(max_examples=100, deadline=None)
def test_half_erases_nothing_and_any_cut_is_a_cut(values):
    c = np.array(values).reshape(1, 3, 4)
    assert covered(c, 'half').any() == (c > 0).any()
    assert (covered(c, .9) == (c > .9)).all() and not (covered(c, .9) & ~covered(c, 'half')).any()

# ---- names

def test_every_name_has_one_category():
    t, unknown = table('categories'), 'a thing nobody named'
    assert not t.duplicated(['kind', 'name']).any() and (t.name == t.name.str.strip().str.lower()).all()
    assert not uncategorised(coco_index())
    assert category(unknown) == 'other' and uncategorised([unknown]) == [unknown]

@pytest.mark.skipif(not VOCAB.is_dir(), reason="GQA's names are not here")
def test_every_name_of_gqa_has_a_category():
    texts = [(VOCAB/f'gqa/{kind}_gqa.txt').read_text() for kind in ('name', 'attr')]
    names = [line for line in '\n'.join(texts).splitlines() if line.strip() not in ('', '<unk>')]
    assert len(names) > 2300 and not uncategorised(names)

@given(st.one_of(st.text(max_size=40), st.none(), st.integers(), st.floats()))
@settings(max_examples=200, deadline=None)
def test_no_name_crashes(name):
    v = make_vocabulary({'tree': 5}, {'red': 5}, floor=1)
    assert v.object(name) in (None, object_name(name)) and v.attribute(name) in (None, 'red')
    assert category(name)
    assert object_name(object_name(name)) == object_name(name) # consolidating twice changes nothing

def test_vocabulary_files_round_trip(tmp_path):
    objects = {'tree': True, 'gizmo': False, 'zzz unheard': True}
    attributes = {'double decker': True, 'chain-link': False}
    index = {'person': 0, 'traffic_light': 9}
    given = dict(coco_idx=index, filtered_vg_obj=objects, filtered_vg_attr=attributes)
    for name, content in given.items(): (tmp_path/f'{name}.json').write_text(json.dumps(content))
    v = read_vocabulary(tmp_path)
    write_vocabulary(v, tmp_path/'again')
    for name, content in given.items():
        assert json.loads((tmp_path/f'again/{name}.json').read_text()) == content
    assert v.object('traffic lights') == 'traffic_light' and v.object('gizmo') is None
    assert v.attribute('double-decker') == 'double_decker' and v.attribute('chain link') is None

# ---- broken input

def without_none(values): return {k: v for k, v in values.items() if v is not None}

def box(**change): return without_none(dict(name='sky', x=0, y=0, w=20, h=10) | change)

def graph(*objects, **size):
    numbered = {str(k): o for k, o in enumerate(objects)}
    return without_none(dict(width=40, height=30) | size | dict(objects=numbered))

RAW = rle.encode(np.asfortranarray(np.pad(np.ones((5, 5), np.uint8), ((5, 20), (5, 30)))))
PACKED = RAW | dict(counts=RAW['counts'].decode())
A_BOX = dict(a=graph(box()))

def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path

def draw(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)

def with_images(d, *names):
    for n in names or 'abc': draw(d/f'images/{n}.png', np.zeros((30, 40, 3), np.uint8))
    return d/'images'

def gqa(change=None, text=lambda text: text):
    "Image b is changed; a and c are whole."
    def make(d, problems):
        content = dict(a=graph(box()), b=graph(box()) if change is None else change, c=graph(box()))
        path = write(d/'graphs.json', text(json.dumps(content)))
        return gqa_regions(path, with_images(d), min_images=1, problems=problems)
    return make

def one_graph(content=A_BOX, images=with_images, **options):
    return lambda d, p: gqa_regions(write(d/'g.json', content), images(d), problems=p, **options)

def images_twice(d):
    draw(with_images(d)/'more/a.png', np.zeros((30, 40, 3), np.uint8))
    return d/'images'

def vg(change, file='objects'):
    "Lists of images 1, 2 and 3, one of which is changed."
    def make(d, problems):
        images = with_images(d, '1', '2', '3')
        sky = dict(names=['sky'], x=0, y=0, w=9, h=9)
        lists = dict(
            image_data=[dict(image_id=i, width=40, height=30) for i in (1, 2, 3)],
            attributes=[dict(image_id=1, attributes=[])],
            objects=[dict(image_id=i, objects=[dict(object_id=i) | sky]) for i in (1, 2, 3)],
        )
        lists[file] = change(lists[file])
        for name, content in lists.items():
            if content is not None: write(d/f'{name}.json', content)
        return vg_regions(d, images, min_images=1, problems=problems)
    return make

def second(entry):
    "Another entry in the place of image 2."
    return lambda entries: [entries[0], entry, entries[2]]

def frames(): return [dict(id=i, file_name=f'{n}.png', width=40, height=30) for i, n in enumerate('abc', 1)]

def coco(change):
    "Instances; `change` alters the data, in which image 2 (b) has one annotation."
    def make(d, problems):
        annotations = [dict(image_id=i, category_id=1, segmentation=PACKED) for i in (1, 2, 3)]
        data = dict(images=frames(), categories=[dict(id=1, name='person')], annotations=annotations)
        change(data)
        return read_all(coco_regions(write(d/'instances.json', data), with_images(d), problems=problems))
    return make

def segment(s): return coco(lambda data: data['annotations'][1].update(segmentation=s))

def of_no_image(data): data['annotations'].append(dict(image_id=77, category_id=1, segmentation=PACKED))

def not_segmented(data): data['annotations'][1].pop('segmentation')

def untouched(what): pass

def panoptic(change=untouched, png=untouched):
    def make(d, problems):
        annotations = []
        for i, n in enumerate('abc', 1):
            parts = [dict(id=258, category_id=1)]
            annotations.append(dict(image_id=i, file_name=f'{n}.png', segments_info=parts))
            draw(d/f'panoptic/{n}.png', np.full((30, 40, 3), [0, 1, 2], np.uint8)) # blue, green, red: 2 + 256
        categories = [dict(id=1, name='sky-other-merged')]
        data = dict(images=frames(), categories=categories, annotations=annotations)
        change(data)
        png(d/'panoptic/b.png')
        return read_all(coco_regions(write(d/'panoptic.json', data), with_images(d), problems=problems))
    return make

def one_part_more(data): data['annotations'][1]['segments_info'].append(dict(id=5, category_id=1))

def no_parts(data): data['annotations'][1]['segments_info'] = []

def panoptic_alone(d, problems):
    data = dict(images=[], categories=[], annotations=[dict(segments_info=[])])
    return coco_regions(write(d/'p.json', data), with_images(d), problems=problems)

def osie(change):
    def make(d, problems):
        stimuli = with_images(d)
        (d/'labels').mkdir()
        data = np.ones((12, 600, 800), np.uint8)
        for n in 'abc': savemat(d/f'labels/{n}.mat', dict(data=data), do_compression=True)
        change(d/'labels/b.mat')
        return read_all(osie_regions(d/'labels', stimuli, problems=problems))
    return make

def masks(change):
    def make(d, problems):
        images = with_images(d)
        for n in 'abc': draw(d/f'masks/{n}/dog.png', np.full((30, 40), 255, np.uint8))
        change(d/'masks/b/dog.png')
        return read_all(mask_regions(d/'masks', images, problems=problems))
    return make

def no_masks(d, problems):
    (d/'m').mkdir()
    return mask_regions(d/'m', with_images(d), problems=problems)

def two_files(d, problems):
    for name in 'ab': write(d/f'{name}.json', A_BOX)
    return read_regions(d, problems=problems)

def read_all(regions):
    for i in regions.ids: regions.masks(i, (6, 8))
    return regions

def remove(path): path.unlink()

def content(of): return lambda path: path.write_bytes(of)

def replace(**values): return lambda path: savemat(path, values)

def grey(size, value): return lambda path: draw(path, np.full(size, value, np.uint8))

def an_image_twice(text): return text[:-1] + ', "a": {"width": 4, "height": 4, "objects": {}}}'

def other_quotes(text): return '\ufeff' + text.replace('"', '\u201c')

def far_right(text): return text.replace('"x": 0', '"x": 90')

def infinite_in_b(text):
    first, rest = text.split('"h": 10', 1)
    return first + '"h": 10' + rest.replace('"h": 10', '"h": 1e999', 1)

# kind -> reader on a folder, words of the sentence, images that lenient mode leaves (None: it raises, too)
BROKEN = {
    'GQA: truncated': (gqa(text=lambda t: t[:t.index('"c"') + 20]), 'truncated', 2),
    'GQA: no JSON': (gqa(text=lambda t: 'width = 40'), 'not valid JSON', None),
    'GQA: another encoding': (gqa(text=other_quotes), 'not valid JSON', None),
    'GQA: empty file': (gqa(text=lambda t: ''), 'not valid JSON', None),
    'GQA: no graph': (gqa(text=lambda t: '{}'), 'is empty', None),
    'GQA: a list': (gqa(text=lambda t: f'[{t}]'), 'no JSON object', None),
    'GQA: an image twice': (gqa(text=an_image_twice), 'twice', 3),
    'GQA: no objects': (gqa(dict(width=4, height=3)), "'objects'", 2),
    'GQA: objects are no table': (gqa(dict(width=4, height=3, objects=[1])), "'list' object", 2),
    'GQA: no width': (gqa(graph(box(), width=None)), "'width'", 2),
    'GQA: width 0': (gqa(graph(box(), width=0)), 'width and height', 2),
    'GQA: width is text': (gqa(graph(box(), width='wide')), 'width and height', 2),
    'GQA: object without x': (gqa(graph(box(x=None))), "'x'", 2),
    'GQA: x is text': (gqa(graph(box(x='left'))), 'number for x', 2),
    'GQA: h is infinite': (gqa(text=infinite_in_b), 'not valid JSON', 1),
    'GQA: h is NaN': (gqa(text=lambda t: t.replace('"h": 10', '"h": NaN')), 'not valid JSON', None),
    'GQA: object without name': (gqa(graph(box(name=None))), 'name', 2),
    'GQA: name is a number': (gqa(graph(box(name=7))), 'name', 2),
    'GQA: attributes are text': (gqa(graph(box(attributes='red'))), 'list of attributes', 2),
    'GQA: an attribute is a list': (gqa(graph(box(attributes=[['red']]))), 'list of attributes', 2),
    'GQA: an object is a number': (gqa(graph(7)), "'int' object", 2),
    'GQA: no object at all': (one_graph(dict(a=graph(width=4, height=4)), min_images=1), 'no object', None),
    'GQA: every box outside': (gqa(text=far_right), 'no box lies in its image', None),
    'GQA: images of others': (one_graph(dict(z=graph(box()))), 'none of its 1 images', None),
    'GQA: too rare': (one_graph(min_images=9), 'min_images', None),
    'GQA: an id that is not there': (one_graph(ids=['a', 'zz'], min_images=1), 'no image for zz', 1),
    'images: none': (one_graph(images=lambda d: d), 'no images', None),
    'images: no folder': (one_graph(images=lambda d: d/'none'), 'no such folder', None),
    'images: a name twice': (one_graph(images=images_twice), 'two images of one name', None),
    'VG: no files': (lambda d, p: vg_regions(d, with_images(d), problems=p), 'no such file', None),
    'VG: no attributes.json': (vg(lambda c: None, 'attributes'), 'attributes.json: no such file', None),
    'VG: a table instead of a list': (vg(lambda c: dict(objects=c)), 'no JSON list', None),
    'VG: entry without image_id': (vg(second(dict(objects=[]))), 'no image_id', 2),
    'VG: entry without objects': (vg(second(dict(image_id=2))), 'no list of objects', 2),
    'VG: an object without a name': (
        vg(second(dict(image_id=2, objects=[dict(x=0, y=0, w=1, h=1, names=[])]))), 'name', 2),
    'VG: size unknown': (vg(second(dict(image_id=2)), 'image_data'), 'width and height', 2),
    'COCO: truncated': (
        lambda d, p: coco_regions(write(d/'i.json', '{"images": ['), with_images(d), problems=p),
        'not valid JSON', None),
    'COCO: no categories': (coco(lambda data: data.pop('categories')), "'categories'", None),
    'COCO: unknown category': (coco(lambda data: data['annotations'][1].update(category_id=99)), '99', 2),
    'COCO: unknown image': (coco(of_no_image), '77', 3),
    'COCO: no segmentation': (coco(not_segmented), "'segmentation'", 2),
    'COCO: polygon of two points': (segment([[1, 1, 5, 5]]), 'three points', 2),
    'COCO: polygon with a number left over': (segment([[1, 1, 5, 5, 9, 1, 3]]), 'three points', 2),
    'COCO: polygon of words': (segment([['a'] * 6]), 'no number', 2),
    'COCO: RLE of another size': (segment(PACKED | dict(size=[10, 10])), 'its size', 2),
    'COCO: RLE too short': (segment(dict(size=[30, 40], counts=[5, 10])), 'add up to 15', 2),
    'COCO: compressed RLE damaged': (segment(PACKED | dict(counts=PACKED['counts'][:-3])), 'add up to', 2),
    'COCO: segmentation is text': (segment('all'), 'neither polygons', 2),
    'panoptic: no PNGs': (panoptic_alone, 'no such folder', None),
    'panoptic: a PNG missing': (panoptic(png=remove), 'no such file', 2),
    'panoptic: a PNG unreadable': (panoptic(png=content(b'PNG')), 'not a readable image', 2),
    'panoptic: a PNG of another size': (panoptic(png=grey((3, 4), 1)), 'instead of 40 x 30', 2),
    'panoptic: a segment without pixels': (panoptic(one_part_more), 'no pixel of segment 5', 2),
    'panoptic: pixels without a segment': (panoptic(no_parts), 'segment 258 is not in the JSON', 2),
    'OSIE: a file missing': (osie(remove), 'no regions for b', 2),
    'OSIE: a file broken': (osie(content(b'MATLAB')), 'not a readable MATLAB file', 2),
    'OSIE: another variable': (osie(replace(masks=1)), "no variable 'data'", 2),
    'OSIE: another shape': (osie(replace(data=np.ones((3, 4)))), 'has the shape', 2),
    'masks: none': (no_masks, 'holds no masks', None),
    'masks: an empty folder': (masks(remove), 'holds no mask', 2),
    'masks: unreadable': (masks(content(b'')), 'not a readable image', 2),
    'masks: empty': (masks(grey((30, 40), 0)), 'the mask is empty', 2),
    'masks: another shape': (masks(grey((40, 30), 9)), 'not the shape of the image', 2),
    'any: an unknown layout': (
        lambda d, p: read_regions(with_images(d), problems=p), 'no known regions', None),
    'any: nothing there': (lambda d, p: read_regions(d/'none', problems=p), 'no such file or folder', None),
    'any: several': (two_files, 'several sets', None),
    'any: no images': (
        lambda d, p: read_regions(write(d/'x/y/a.json', A_BOX), problems=p), 'images=', None),
}

@pytest.mark.parametrize('make, words, left', BROKEN.values(), ids=BROKEN)
def test_broken_input_is_one_sentence_or_is_left_out(make, words, left, tmp_path):
    for name in ('strict', 'lenient'): (tmp_path/name).mkdir()
    with pytest.raises(DataError) as e: make(tmp_path/'strict', None)
    said = str(e.value)
    assert words in said and '\n' not in said and str(tmp_path) in said and len(said) < 700
    problems = Problems(strict=False)
    if left is None:
        with pytest.raises(DataError): make(tmp_path/'lenient', problems)
    else:
        regions = make(tmp_path/'lenient', problems)
        assert len(regions) == left and problems and any(words in p.sentence for p in problems)
        for i in regions.ids: regions.masks(i, (6, 8))
        assert not problems.images & set(regions.ids) or 'twice' in words

@pytest.mark.parametrize('rule', ['most', 1.5, -1, None])
def test_rule_must_make_sense(rule):
    with pytest.raises(ParameterError, match='rule'): BoxRegions({}, [], [], rule)

WHOLE = {
    'GQA': gqa(),
    'VG': vg(lambda entries: entries),
    'instances': coco(untouched),
    'panoptic': panoptic(),
    'OSIE': osie(untouched),
    'masks': masks(untouched),
}

@pytest.mark.parametrize('make', WHOLE.values(), ids=WHOLE)
def test_whole_input_has_no_problems(make, tmp_path):
    problems = Problems(strict=False)
    regions = make(tmp_path, problems)
    assert not problems and len(regions) == 3 and regions.semantics
    names, on = regions.masks(regions.ids[1], (6, 8))
    assert names and on.any()
    fingerprint = regions.fingerprint()
    assert fingerprint == regions.subset(regions.ids).fingerprint()
    assert fingerprint != regions.subset(regions.ids[:2]).fingerprint()

def test_bench_loads_a_generated_scene_graph():
    asked = [sys.executable, 'bench/scene_graphs.py', '150']
    env = os.environ | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run(asked, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found['images'] == 150 and found['boxes'] > 1000 and found['peak_gb'] < 2

def test_parts_of_coco_are_joined(tmp_path):
    "The models in the box were asked about such a set (`make zoo`)."
    coco = tmp_path/'coco'
    for i, part in enumerate(('train2017', 'val2017'), 1):
        draw(coco/f'images/{part}/{i}.jpg', np.zeros((30, 40, 3), np.uint8))
        draw(coco/f'annotations/panoptic_{part}/{i}.png', np.full((30, 40, 3), [0, 1, 2], np.uint8))
        said = dict(image_id=i, file_name=f'{i}.png', segments_info=[dict(id=258, category_id=1)])
        data = dict(images=[dict(id=i, file_name=f'{i}.jpg', width=40, height=30)], annotations=[said])
        write(coco/f'annotations/panoptic_{part}.json', data | dict(categories=[dict(id=1, name='sky')]))
    subprocess.run([sys.executable, ROOT/'tools/join_coco.py', coco, tmp_path/'all'], check=True)
    regions = read_all(read_regions(tmp_path/'all/annotations/panoptic_all.json'))
    assert regions.ids == ['1', '2'] and regions.semantics == ['sky']

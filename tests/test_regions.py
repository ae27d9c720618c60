"Rasterisation against a brute-force oracle; every kind of broken region file, strict and lenient; formats that need no real data."
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
from saliency_nb.vocabulary import category, coco_index, make_vocabulary, object_name, read_vocabulary, table, uncategorised, write_vocabulary

ROOT = Path(__file__).parent.parent
VOCAB = ROOT.parent/'shared/data/vocab'

# ---- rasterisation

def counted(mask, grid):
    "Every pixel as h x w points, every cell the mean of its H x W points."
    (H, W), (h, w) = mask.shape, grid
    return np.repeat(np.repeat(mask, h, 0), w, 1).reshape(h, H, w, W).mean((1, 3))

def exact_overlap(a0, a1, b0, b1): return max(Fraction(0), min(a1, b1) - max(a0, b0))

side, cells = st.integers(1, 24), st.integers(1, 30)
grids = st.tuples(cells, cells)

@given(st.lists(st.tuples(*[st.integers(-4, 28)] * 4), min_size=1, max_size=5), st.tuples(st.integers(4, 24), st.integers(4, 24)), grids)
@settings(max_examples=60, deadline=None)
def test_boxes_agree_with_exact_fractions(boxes, size, grid):
    (H, W), (h, w) = size, grid
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    shares = np.clip(np.array(boxes) / [W, H, W, H], 0, 1)
    for box, got in zip(boxes, box_coverage(shares, grid)):
        x0, y0, x1, y1 = (Fraction(min(max(v, 0), s), s) for v, s in zip(box, (W, H, W, H)))
        truth = [[exact_overlap(y0 * h, y1 * h, r, r + 1) * exact_overlap(x0 * w, x1 * w, c, c + 1) for c in range(w)] for r in range(h)]
        assert np.allclose(got, np.array(truth, float), atol=1e-9)

@given(st.data(), st.tuples(side, side), grids)
@settings(max_examples=60, deadline=None)
def test_masks_agree_with_counting(data, size, grid):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]))).reshape(size)
    assert np.allclose(mask_coverage(mask, grid), counted(mask, grid), atol=1e-5)
    flipped = mask_coverage(mask[:, ::-1], grid)[:, ::-1] # flipping mask and grid together changes nothing
    assert np.allclose(flipped, counted(mask, grid), atol=1e-5)

@given(st.data(), st.tuples(side, side), grids)
@settings(max_examples=40, deadline=None)
def test_run_lengths_agree_with_counting(data, size, grid):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]))).reshape(size)
    packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    column = mask.ravel('F'); starts = np.flatnonzero(np.diff(np.r_[False, column, not column[-1]]))
    truth = np.diff(np.r_[0, starts]).tolist()
    assert run_lengths(packed['counts']) == truth
    regions = InstanceRegions({'i': ''}, ['thing'], ['f'], rule=.3)
    on = counted(mask, grid) > .3
    if np.abs(counted(mask, grid) - .3).min() < 1e-4: return # a cell exactly at the cut: float32 decides
    for segment in (packed, packed | dict(counts=packed['counts'].decode()), dict(size=list(size), counts=truth)):
        regions.segments = {'i': (size, [('thing', segment)])}
        names, masks = regions.masks('i', grid)
        assert (masks[0] == on).all() if on.any() else names == []

@given(st.lists(st.tuples(st.floats(0, 6.28), st.floats(3, 18)), min_size=3, max_size=9, unique_by=lambda p: round(p[0], 1)), grids)
@settings(max_examples=60, deadline=None)
def test_polygons_agree_with_points_inside(spokes, grid):
    "Beyond one pixel from its outline a polygon's mask is that of the pixel centres inside; its cells then are counted from the mask."
    H, W = 40, 44
    corners = np.array([(22 + r * np.cos(a), 20 + r * np.sin(a)) for a, r in sorted(spokes)])
    mask = rle.decode(segment_rle([corners.ravel().tolist()], (H, W))).astype(bool)
    y, x = np.mgrid[:H, :W] + .5
    centres = np.stack([x.ravel(), y.ravel()], 1)
    a, b = corners, np.roll(corners, -1, 0)
    d = b - a; t = np.clip(((centres[:, None] - a) * d).sum(-1) / np.maximum((d * d).sum(-1), 1e-12), 0, 1)
    far = (np.linalg.norm(centres[:, None] - (a + t[..., None] * d), axis=-1).min(1) > 1).reshape(H, W)
    inside = Outline(np.r_[corners, corners[:1]], closed=True).contains_points(centres).reshape(H, W)
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
    t = table('categories')
    assert not t.duplicated(['kind', 'name']).any() and (t.name.map(lambda n: n == n.strip().lower())).all()
    assert not uncategorised(coco_index()) and category('a thing nobody named') == 'other' and uncategorised(['a thing nobody named']) == ['a thing nobody named']

@pytest.mark.skipif(not VOCAB.is_dir(), reason="GQA's names are not here")
def test_every_name_of_gqa_has_a_category():
    names = [n for f in ('name', 'attr') for n in (VOCAB/f'gqa/{f}_gqa.txt').read_text().splitlines() if n.strip() not in ('', '<unk>')]
    assert len(names) > 2300 and not uncategorised(names)

@given(st.one_of(st.text(max_size=40), st.none(), st.integers(), st.floats()))
@settings(max_examples=200, deadline=None)
def test_no_name_crashes(name):
    v = make_vocabulary({'tree': 5}, {'red': 5}, floor=1)
    assert v.object(name) in (None, object_name(name)) and v.attribute(name) in (None, 'red') and category(name)
    assert object_name(object_name(name)) == object_name(name) # consolidating twice changes nothing

def test_vocabulary_files_round_trip(tmp_path):
    given = dict(coco_idx={'person': 0, 'traffic_light': 9}, filtered_vg_obj={'tree': True, 'gizmo': False, 'zzz unheard': True}, filtered_vg_attr={'double decker': True, 'chain-link': False})
    for name, content in given.items(): (tmp_path/f'{name}.json').write_text(json.dumps(content))
    v = read_vocabulary(tmp_path)
    write_vocabulary(v, tmp_path/'again')
    for name, content in given.items(): assert json.loads((tmp_path/f'again/{name}.json').read_text()) == content
    assert v.object('traffic lights') == 'traffic_light' and v.object('gizmo') is None and v.attribute('double-decker') == 'double_decker' and v.attribute('chain link') is None

# ---- broken input

def box(**change): return {k: v for k, v in (dict(name='sky', x=0, y=0, w=20, h=10) | change).items() if v is not None}
def graph(*objects, **size): return {k: v for k, v in (dict(width=40, height=30) | size | dict(objects={str(k): o for k, o in enumerate(objects)})).items() if v is not None}
RAW = rle.encode(np.asfortranarray(np.pad(np.ones((5, 5), np.uint8), ((5, 20), (5, 30)))))
PACKED = RAW | dict(counts=RAW['counts'].decode())

def write(path, content): path.parent.mkdir(parents=True, exist_ok=True); path.write_text(content if isinstance(content, str) else json.dumps(content)); return path
def with_images(d, *names):
    for n in names or 'abc': (d/'images').mkdir(exist_ok=True); cv2.imwrite(str(d/f'images/{n}.png'), np.zeros((30, 40, 3), np.uint8))
    return d/'images'

def gqa(change=None, text=None):
    "Image b is changed; a and c are whole."
    def make(d, problems):
        content = dict(a=graph(box()), b=graph(box()), c=graph(box())) | (dict(b=change) if change is not None else {})
        path = write(d/'graphs.json', json.dumps(content) if text is None else text(json.dumps(content)))
        return gqa_regions(path, with_images(d), min_images=1, problems=problems)
    return make

def vg(change, file='objects'):
    def make(d, problems):
        images = with_images(d, '1', '2', '3')
        lists = dict(image_data=[dict(image_id=i, width=40, height=30) for i in (1, 2, 3)], attributes=[dict(image_id=1, attributes=[])],
                     objects=[dict(image_id=i, objects=[dict(object_id=i, names=['sky'], x=0, y=0, w=9, h=9)]) for i in (1, 2, 3)])
        lists[file] = change(lists[file])
        for name, content in lists.items():
            if content is not None: write(d/f'{name}.json', content)
        return vg_regions(d, images, min_images=1, problems=problems)
    return make

def coco(change):
    "Instances; `change` alters the data, in which image 2 (b) has one annotation."
    def make(d, problems):
        data = dict(images=[dict(id=i, file_name=f'{n}.png', width=40, height=30) for i, n in enumerate('abc', 1)], categories=[dict(id=1, name='person')],
                    annotations=[dict(image_id=i, category_id=1, segmentation=PACKED) for i in (1, 2, 3)])
        change(data)
        return read_all(coco_regions(write(d/'instances.json', data), with_images(d), problems=problems))
    return make
def segment(s): return coco(lambda data: data['annotations'][1].update(segmentation=s))

def panoptic(change=lambda data: None, png=lambda path: None):
    def make(d, problems):
        data = dict(images=[dict(id=i, file_name=f'{n}.png', width=40, height=30) for i, n in enumerate('abc', 1)], categories=[dict(id=1, name='sky-other-merged')],
                    annotations=[dict(image_id=i, file_name=f'{n}.png', segments_info=[dict(id=258, category_id=1)]) for i, n in enumerate('abc', 1)])
        (d/'panoptic').mkdir()
        for n in 'abc': cv2.imwrite(str(d/f'panoptic/{n}.png'), np.full((30, 40, 3), [0, 1, 2], np.uint8)) # blue, green, red: 2 + 256
        change(data); png(d/'panoptic/b.png')
        return read_all(coco_regions(write(d/'panoptic.json', data), with_images(d), problems=problems))
    return make

def osie(change):
    def make(d, problems):
        stimuli = with_images(d); (d/'labels').mkdir()
        for n in 'abc': savemat(d/f'labels/{n}.mat', dict(data=np.ones((12, 600, 800), np.uint8)), do_compression=True)
        change(d/'labels/b.mat')
        return read_all(osie_regions(d/'labels', stimuli, problems=problems))
    return make

def masks(change):
    def make(d, problems):
        images = with_images(d)
        for n in 'abc': (d/f'masks/{n}').mkdir(parents=True); cv2.imwrite(str(d/f'masks/{n}/dog.png'), np.full((30, 40), 255, np.uint8))
        change(d/'masks/b/dog.png')
        return read_all(mask_regions(d/'masks', images, problems=problems))
    return make

def read_all(regions):
    for i in regions.ids: regions.masks(i, (6, 8))
    return regions

def replace(**values): return lambda path: savemat(path, values)
def grey(size, value): return lambda path: cv2.imwrite(str(path), np.full(size, value, np.uint8))

# kind -> (reader on a folder, words of the sentence, images that are left in lenient mode; None: nothing can be left)
BROKEN = {
    'GQA: truncated': (gqa(text=lambda t: t[:t.index('"c"') + 20]), 'truncated', 2),
    'GQA: no JSON': (gqa(text=lambda t: 'width = 40'), 'not valid JSON', None),
    'GQA: another encoding': (gqa(text=lambda t: '\ufeff' + t.replace('"', '\u201c')), 'not valid JSON', None),
    'GQA: empty file': (gqa(text=lambda t: ''), 'not valid JSON', None),
    'GQA: no graph': (gqa(text=lambda t: '{}'), 'is empty', None),
    'GQA: a list': (gqa(text=lambda t: f'[{t}]'), 'holds a list', None),
    'GQA: an image twice': (gqa(text=lambda t: t[:-1] + ', "a": {"width": 4, "height": 4, "objects": {}}}'), 'twice', 3),
    'GQA: no objects': (gqa(dict(width=4, height=3)), "no 'objects'", 2),
    'GQA: objects are no table': (gqa(dict(width=4, height=3, objects=[1])), "no 'list' object", 2),
    'GQA: no width': (gqa(graph(box(), width=None)), "no 'width'", 2),
    'GQA: width 0': (gqa(graph(box(), width=0)), 'width and height', 2),
    'GQA: width is text': (gqa(graph(box(), width='wide')), 'width and height', 2),
    'GQA: object without x': (gqa(graph(box(x=None))), "'x'", 2),
    'GQA: x is text': (gqa(graph(box(x='left'))), 'number for x', 2),
    'GQA: h is infinite': (gqa(text=lambda t: t.replace('"h": 10', '"h": 1e999', 2).replace('"h": 1e999', '"h": 10', 1)), 'not valid JSON', 1),
    'GQA: h is NaN': (gqa(text=lambda t: t.replace('"h": 10', '"h": NaN')), 'not valid JSON', None),
    'GQA: object without name': (gqa(graph(box(name=None))), 'name', 2),
    'GQA: name is a number': (gqa(graph(box(name=7))), 'name', 2),
    'GQA: attributes are text': (gqa(graph(box(attributes='red'))), 'list of attributes', 2),
    'GQA: an attribute is a list': (gqa(graph(box(attributes=[['red']]))), 'list of attributes', 2),
    'GQA: an object is a number': (gqa(graph(7)), 'no usable', 2),
    'GQA: no object at all': (gqa(text=lambda t: '{"a": {"width": 4, "height": 4, "objects": {}}}'), 'no object', None),
    'GQA: every box outside': (gqa(text=lambda t: t.replace('"x": 0', '"x": 90')), 'no box lies in its image', None),
    'GQA: images of others': (lambda d, p: gqa_regions(write(d/'g.json', dict(z=graph(box()))), with_images(d), problems=p), 'none of its 1 images', None),
    'GQA: too rare': (lambda d, p: gqa_regions(write(d/'g.json', dict(a=graph(box()))), with_images(d), min_images=9, problems=p), 'min_images', None),
    'GQA: an id that is not there': (lambda d, p: gqa_regions(write(d/'g.json', dict(a=graph(box()))), with_images(d), ids=['a', 'zz'], min_images=1, problems=p), 'no image for zz', 1),
    'images: none': (lambda d, p: gqa_regions(write(d/'g.json', dict(a=graph(box()))), d, problems=p), 'no images', None),
    'images: no folder': (lambda d, p: gqa_regions(write(d/'g.json', dict(a=graph(box()))), d/'none', problems=p), 'no such folder', None),
    'images: a name twice': (lambda d, p: gqa_regions(write(d/'g.json', dict(a=graph(box()))), (with_images(d), (d/'images/more').mkdir(), (d/'images/a.png').read_bytes(), (d/'images/more/a.png').write_bytes(b''))[0], problems=p), 'two images of one name', None),
    'VG: no files': (lambda d, p: vg_regions(d, with_images(d), problems=p), 'no such file', None),
    'VG: no attributes.json': (vg(lambda c: None, 'attributes'), 'attributes.json: no such file', None),
    'VG: a table instead of a list': (vg(lambda c: dict(objects=c)), 'single object', None),
    'VG: entry without image_id': (vg(lambda c: [c[0], dict(objects=[]), c[2]]), 'no image_id', 2),
    'VG: entry without objects': (vg(lambda c: [c[0], dict(image_id=2), c[2]]), 'no list of objects', 2),
    'VG: an object without a name': (vg(lambda c: [c[0], dict(image_id=2, objects=[dict(x=0, y=0, w=1, h=1, names=[])]), c[2]]), 'name', 2),
    'VG: size unknown': (vg(lambda c: [dict(image_id=1, width=40, height=30), dict(image_id=2), dict(image_id=3, width=40, height=30)], 'image_data'), 'width and height', 2),
    'COCO: truncated': (lambda d, p: coco_regions(write(d/'i.json', '{"images": ['), with_images(d), problems=p), 'not valid JSON', None),
    'COCO: no categories': (coco(lambda data: data.pop('categories')), "'categories'", None),
    'COCO: unknown category': (coco(lambda data: data['annotations'][1].update(category_id=99)), '99', 2),
    'COCO: unknown image': (coco(lambda data: data['annotations'].append(dict(image_id=77, category_id=1, segmentation=PACKED))), '77', 3),
    'COCO: no segmentation': (coco(lambda data: data['annotations'][1].pop('segmentation')), "'segmentation'", 2),
    'COCO: polygon of two points': (segment([[1, 1, 5, 5]]), 'three points', 2),
    'COCO: polygon with a number left over': (segment([[1, 1, 5, 5, 9, 1, 3]]), 'three points', 2),
    'COCO: polygon of words': (segment([['a'] * 6]), 'no number', 2),
    'COCO: RLE of another size': (segment(PACKED | dict(size=[10, 10])), 'its size', 2),
    'COCO: RLE too short': (segment(dict(size=[30, 40], counts=[5, 10])), 'add up to 15', 2),
    'COCO: compressed RLE damaged': (segment(PACKED | dict(counts=PACKED['counts'][:-3])), 'add up to', 2),
    'COCO: segmentation is text': (segment('all'), 'neither polygons', 2),
    'panoptic: no PNGs': (lambda d, p: coco_regions(write(d/'p.json', dict(images=[], categories=[], annotations=[dict(segments_info=[])])), with_images(d), problems=p), 'no such folder', None),
    'panoptic: a PNG missing': (panoptic(png=lambda path: path.unlink()), 'no such file', 2),
    'panoptic: a PNG unreadable': (panoptic(png=lambda path: path.write_bytes(b'PNG')), 'not a readable image', 2),
    'panoptic: a PNG of another size': (panoptic(png=grey((3, 4), 1)), 'instead of 40 x 30', 2),
    'panoptic: a segment without pixels': (panoptic(lambda data: data['annotations'][1]['segments_info'].append(dict(id=5, category_id=1))), 'no pixel of segment 5', 2),
    'panoptic: pixels without a segment': (panoptic(lambda data: data['annotations'][1].update(segments_info=[])), 'segment 258 is not in the JSON', 2),
    'OSIE: a file missing': (osie(lambda path: path.unlink()), 'no such file', 2),
    'OSIE: a file broken': (osie(lambda path: path.write_bytes(b'MATLAB')), 'not a readable MATLAB file', 2),
    'OSIE: another variable': (osie(replace(masks=1)), "no variable 'data'", 2),
    'OSIE: another shape': (osie(replace(data=np.ones((3, 4)))), 'has the shape', 2),
    'masks: none': (lambda d, p: ((d/'m').mkdir(), mask_regions(d/'m', with_images(d), problems=p)), 'holds no masks', None),
    'masks: an empty folder': (masks(lambda path: path.unlink()), 'holds no mask', 2),
    'masks: unreadable': (masks(lambda path: path.write_bytes(b'')), 'not a readable image', 2),
    'masks: empty': (masks(grey((30, 40), 0)), 'the mask is empty', 2),
    'masks: another shape': (masks(grey((40, 30), 9)), 'not the shape of the image', 2),
    'any: an unknown layout': (lambda d, p: read_regions(with_images(d), problems=p), 'no known regions', None),
    'any: nothing there': (lambda d, p: read_regions(d/'none', problems=p), 'no such file or folder', None),
    'any: several': (lambda d, p: (write(d/'a.json', dict(a=graph(box()))), write(d/'b.json', dict(a=graph(box()))), read_regions(d, problems=p)), 'several sets', None),
    'any: no images': (lambda d, p: read_regions(write(d/'x/y/a.json', dict(a=graph(box()))), problems=p), 'images=', None),
}

@pytest.mark.parametrize('kind', BROKEN)
def test_broken_input_is_one_sentence_or_is_left_out(kind, tmp_path):
    make, words, left = BROKEN[kind]
    (tmp_path/'strict').mkdir(); (tmp_path/'lenient').mkdir()
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

@pytest.mark.parametrize('make', [gqa(), vg(lambda c: c), coco(lambda data: None), panoptic(), osie(lambda path: None), masks(lambda path: None)], ids=['GQA', 'VG', 'instances', 'panoptic', 'OSIE', 'masks'])
def test_whole_input_has_no_problems(make, tmp_path):
    problems = Problems(strict=False)
    regions = make(tmp_path, problems)
    assert not problems and len(regions) == 3 and regions.semantics
    names, on = regions.masks(regions.ids[1], (6, 8))
    kept = regions.cached(tmp_path/'cache')
    for _ in range(2): assert kept.masks(regions.ids[1], (6, 8))[0] == names and (kept.masks(regions.ids[1], (6, 8))[1] == on).all() # made, then found
    assert len(list((tmp_path/'cache').iterdir())) == 1
    assert regions.fingerprint() == regions.subset(regions.ids).fingerprint() != regions.subset(regions.ids[:2]).fingerprint()

def test_bench_loads_a_generated_scene_graph():
    done = subprocess.run([sys.executable, 'bench/scene_graphs.py', '150'], cwd=ROOT, env=os.environ | dict(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found['images'] == 150 and found['boxes'] > 1000 and found['peak_gb'] < 2

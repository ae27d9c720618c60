"Region files as people have them: one test per kind, each with several examples."
import json, unicodedata
from itertools import product
import cv2, numpy as np, pytest
from PIL import Image
from scipy.io import savemat
from saliency_nb.core import DataError, Problems
from saliency_nb.fixations import OSIE_FRAME
from saliency_nb.regions import OSIE_ATTRIBUTES, osie_regions
from saliency_nb.coco import coco_regions
from saliency_nb.scene_graphs import gqa_regions, graph_names
from saliency_nb.region_readers import (json_layout, load_mask, mask_regions, osie_objects, read_regions,
                                        region_layouts, vg_regions)
from saliency_nb.vocabulary import make_vocabulary, read_vocabulary, write_vocabulary

DISC = ((np.indices((30, 40)) - np.array([14.5, 19.5])[:, None, None])**2).sum(0) < 38 # 120 pixels
WHITE = DISC[..., None] * np.full(3, 255, np.uint8)
SQUARE = [[5, 5, 25, 5, 25, 15, 5, 15]]
BOX = [5, 5, 20, 10]


def lenient():
    return Problems(strict=False)

def with_images(folder, *names):
    (folder/'images').mkdir(parents=True, exist_ok=True)
    for name in names: Image.new('RGB', (40, 30)).save(folder/'images'/f'{name}.png')
    return folder/'images'

def write(path, content, encoding='utf-8'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content).encode(encoding))
    return path

def thing(name='sky', **change):
    return dict(name=name, x=0, y=0, w=20, h=10) | change

def graph(*objects, **size):
    return dict(width=40, height=30) | size | dict(objects={str(k): o for k, o in enumerate(objects)})

def coco(*segments, **change):
    "Image a, with one annotation for each segment."
    annotated = [s if isinstance(s, dict) else dict(segmentation=s) for s in segments]
    return dict(
        images=[dict(id=1, file_name='a.png', width=40, height=30)],
        categories=[dict(id=1, name='dog'), dict(id=2, name='cat')],
        annotations=[dict(image_id=1, category_id=1) | a for a in annotated],
    ) | change

def from_graphs(folder, graphs, images, **options):
    "Regions of GQA's scene graphs, all names kept."
    return gqa_regions(write(folder/'g.json', graphs, **options), images, min_images=1)

def from_vg(folder, graphs, images, **options):
    "Regions of Visual Genome's scene graphs, all names kept."
    path = write(folder/'vg/scene_graphs.json', graphs, **options)
    return vg_regions(path.parent, images, min_images=1)

def from_coco(folder, data, images): return coco_regions(write(folder/'c.json', data), images)

def put_mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DISC).save(path)

def said(raised):
    "The sentence of a fault, which must be one and name a kind."
    sentence = str(raised.value)
    assert sentence.endswith('.') and '\n' not in sentence and raised.value.kind
    return sentence

# ---- masks

def rgba(colour, opacity): return Image.fromarray(np.dstack([colour, opacity]).astype(np.uint8))

def raw(array): return lambda path: cv2.imwrite(str(path), array)

def floats(inside): return Image.fromarray(np.where(DISC, inside, 0).astype(np.float32))

def blue(brightness, kind=np.uint8): return DISC[..., None] * np.array([0, 0, brightness], kind)

BLACK = np.zeros_like(WHITE)
RIGHT = np.indices(DISC.shape)[1] > 3

MASKS = { # name of the file -> picture of the disc, or function that writes it
    'white.jpg': Image.fromarray(WHITE),
    'grey.jpeg': Image.fromarray(WHITE[..., 0]),
    'white.webp': Image.fromarray(WHITE),
    'labels.png': Image.fromarray(DISC.astype(np.uint16)),
    'labels.tif': Image.fromarray(DISC * np.int32(3)),
    'colours16.png': raw(blue(9, np.uint16)),
    'colours16_alpha.png': raw(np.dstack([DISC * np.uint16(0)] * 3 + [DISC * np.uint16(65535)])),
    'black_cut_out.png': rgba(BLACK, DISC * 255),
    'white_cut_out.png': rgba(255 - BLACK, DISC * 255),
    'soft_cut_out.png': rgba(BLACK, np.where(DISC, 130, 120)),
    'grey_cut_out.png': Image.fromarray(np.dstack([DISC * np.uint8(0), DISC * np.uint8(200)]), 'LA'),
    'opaque.png': rgba(WHITE, np.full(DISC.shape, 255)),
    'blue.png': Image.fromarray(blue(4)),
    'palette.png': Image.fromarray(blue(9)).quantize(),
    'one_bit.png': Image.fromarray(DISC),
    'one_bit.bmp': Image.fromarray(DISC),
    'float.tif': floats(.001),
}

@pytest.mark.parametrize('name', MASKS)
def test_a_mask_is_its_120_pixels_however_it_was_saved(name, tmp_path):
    make = MASKS[name]
    make(tmp_path/name) if callable(make) else make.save(tmp_path/name)
    assert (load_mask(tmp_path/name) == DISC).all()

UNUSABLE = { # name of the file -> picture, words of the sentence
    'dim.jpg': (Image.fromarray(WHITE // 4), 'half bright'),
    'dim.webp': (Image.fromarray(WHITE // 4), 'half bright'),
    'nan.tif': (floats(np.nan), 'no number'),
    'infinite.tif': (floats(np.inf), 'no number'),
    'unclear.png': (rgba(WHITE, RIGHT), 'empty'),
    'both.png': (rgba(WHITE, 255 * RIGHT), 'not clear'),
    'black.png': (Image.new('L', (4, 4)), 'is empty'),
    'black.jpg': (Image.new('RGB', (8, 8)), 'is empty'),
    'clear.png': (rgba(WHITE, DISC * 100), 'is empty'),
}

@pytest.mark.parametrize('name', UNUSABLE)
def test_a_mask_that_cannot_be_told_is_a_sentence(name, tmp_path):
    picture, words = UNUSABLE[name]
    picture.save(tmp_path/name)
    with pytest.raises(DataError) as e: load_mask(tmp_path/name)
    assert words in said(e) and name in said(e)

# ---- names

EMPTY = ['', '--', '  ', '_', '- _']

@pytest.mark.parametrize('name', EMPTY)
def test_an_empty_name_in_scene_graphs_is_left_out_and_counted(name, tmp_path):
    images = with_images(tmp_path, 'a')
    objects = [thing(name), thing(attributes=[name, None, 'red'])]
    named = [o | dict(names=[o['name']]) for o in objects]
    gqa = from_graphs(tmp_path, dict(a=graph(*objects)), images)
    vg = from_vg(tmp_path, [dict(image_id='a', objects=named)], images)
    for r in (gqa, vg):
        assert r.semantics == ['red', 'sky'] == r.masks('a', (6, 8))[0]
        assert r.left_out['objects without a name'] == 1 and r.left_out['attributes without a name'] == 2
        assert r.left_out['objects whose name is not kept'] == 0
        assert [p.kind for p in r.notes] == ['empty regions']
    objects, attributes = graph_names(tmp_path/'g.json')
    assert dict(objects) == dict(sky=1) and dict(attributes) == dict(red=1)

@pytest.mark.parametrize('name', EMPTY)
def test_an_empty_name_of_a_category_is_left_out_and_counted(name, tmp_path):
    categories = [dict(id=1, name='dog'), dict(id=2, name=name)]
    data = coco(SQUARE, dict(segmentation=SQUARE, category_id=2), categories=categories)
    r = from_coco(tmp_path, data, with_images(tmp_path, 'a'))
    assert r.semantics == r.masks('a', (6, 8))[0] == ['dog'] and r.left_out['segments without a name'] == 1

@pytest.mark.parametrize('name', EMPTY)
def test_an_empty_name_is_not_in_the_vocabulary(name, tmp_path):
    v = make_vocabulary({name: 9, 'sky': 9}, {name: 9, 'red': 9}, floor=1)
    assert name not in v.objects and '' not in v.kept_objects | v.kept_attributes
    write_vocabulary(v, tmp_path/'v')
    (tmp_path/'v/filtered_vg_obj.json').write_text(json.dumps({name: True, 'sky': True}))
    assert read_vocabulary(tmp_path/'v').object(name) is None

@pytest.mark.parametrize('category', [dict(id=2, name=None), dict(id=2), dict(id=2, name='--')])
def test_a_category_without_a_name_is_left_out_and_its_pixels_known(category, tmp_path):
    images = with_images(tmp_path, 'a')
    data = coco(categories=[dict(id=1, name='dog'), category])
    segments = [dict(id=1, category_id=1), dict(id=2, category_id=2)]
    data['annotations'] = [dict(image_id=1, file_name='a.png', segments_info=segments)]
    (tmp_path/'p').mkdir()
    cv2.imwrite(str(tmp_path/'p/a.png'), np.dstack([DISC * 0, DISC * 0, 2 - DISC]).astype(np.uint8))
    r = coco_regions(write(tmp_path/'p.json', data), images)
    found, masks = r.masks('a', (30, 40))
    assert found == ['dog'] and (masks[0] == DISC).all() and r.left_out['segments without a name'] == 1

@pytest.mark.parametrize('name', ['--', ' ', '_'])
def test_a_mask_file_without_a_name_is_left_out_and_counted(name, tmp_path):
    images = with_images(tmp_path, 'a', 'b')
    for path in (f'a/{name}.png', 'a/dog.PNG', f'b/{name}.png'): put_mask(tmp_path/'m'/path)
    problems = lenient()
    r = mask_regions(tmp_path/'m', images, problems=problems)
    assert r.ids == ['a'] and r.semantics == ['dog']
    assert r.left_out['masks without a name'] == 1 and [p.image for p in problems] == ['b']

@pytest.mark.parametrize('name', ['nan', 'null', 'NA', '7', 'None'])
def test_words_that_tables_take_for_missing_are_names(name, tmp_path):
    images, own = with_images(tmp_path, 'a'), name.lower()
    put_mask(tmp_path/f'm/a/{name}.png')
    found = [
        from_graphs(tmp_path, dict(a=graph(thing(name))), images),
        mask_regions(tmp_path/'m', images),
        from_coco(tmp_path, coco(SQUARE, categories=[dict(id=1, name=name)]), images),
    ]
    for r in found: assert r.masks('a', (6, 8))[0] == r.semantics == [own]
    v = make_vocabulary({name: 5}, {name: 5}, floor=1)
    assert v.object(name) == v.attribute(name) == own
    assert read_vocabulary(write_vocabulary(v, tmp_path/'v')) == v

# ---- OSIE's attrs.mat

def cell(values):
    made = np.empty(len(values), object)
    made[:] = values
    return made

def osie_object(rows, columns, *attributes, names=OSIE_ATTRIBUTES, shape=OSIE_FRAME):
    area = np.zeros(shape, bool)
    area[rows, columns] = True
    return dict(map=area, features=np.array([2. * (a in attributes) for a in names]))

FACES = [
    (slice(9, 300), slice(9, 200), 'face', 'emotion'),
    (slice(200, 500), slice(100, 700), 'face'),
    (slice(0, 4), slice(0, 4), 'text'),
]
THINGS = {
    'several objects': FACES,
    'one object': [(slice(100, 200), slice(300, 500), 'taste', 'smell', 'touched')],
    'an object without attributes': [(slice(9), slice(9)), (slice(20, 90), slice(20, 90), 'motion')],
    'no object': [],
}

def osie_stimuli(folder, size):
    (folder/'stimuli').mkdir()
    for i in ('1001', '1002'): Image.new('RGB', size).save(folder/f'stimuli/{i}.jpg')

def osie_labels(folder, objects, names):
    "The same objects as layers, one for each attribute; image 1002 has none."
    marked = np.zeros((12, *OSIE_FRAME), np.uint8)
    for o in objects:
        for k in np.flatnonzero(o['features']): marked[OSIE_ATTRIBUTES.index(names[k])] += o['map']
    (folder/'labels').mkdir()
    for i, data in (('1001', marked), ('1002', marked * 0)):
        savemat(folder/f'labels/{i}.mat', dict(data=data), do_compression=True)

def masks_of(regions, image, grid): return dict(zip(*regions.masks(image, grid)))

OSIE_ORDERS = [*zip(THINGS, [OSIE_ATTRIBUTES, OSIE_ATTRIBUTES[::-1]] * 2)]

@pytest.mark.parametrize('kind, names', OSIE_ORDERS, ids=THINGS)
def test_attrs_mat_gives_the_masks_of_labels(kind, names, tmp_path):
    objects = [osie_object(*t, names=names) for t in THINGS[kind]]
    osie_stimuli(tmp_path, OSIE_FRAME[::-1])
    osie_labels(tmp_path, objects, names)
    attrs = [dict(img='1001.jpg', objs=cell(objects)), dict(img='1002.jpg', objs=cell([]))]
    content = dict(attrs=cell(attrs), attrNames=cell(names))
    savemat(tmp_path/'Attrs.MAT', content, appendmat=False, do_compression=True)
    assert region_layouts(tmp_path) == [('osie', tmp_path/'labels')]
    (tmp_path/'labels').rename(tmp_path/'elsewhere')
    labels = osie_regions(tmp_path/'elsewhere', tmp_path/'stimuli')
    assert region_layouts(tmp_path) == [('osie', tmp_path/'Attrs.MAT')]
    problems = lenient()
    found = read_regions(tmp_path, problems=problems)
    assert found.ids == labels.ids and found.semantics == labels.semantics and not problems
    for i, grid in product(found.ids, ((60, 80), (7, 9))):
        one, other = masks_of(labels, i, grid), masks_of(found, i, grid)
        assert one.keys() == other.keys() and all((one[n] == other[n]).all() for n in one)
    assert '1002' in {p.image for p in found.notes if p.kind == 'empty regions'}

def lose_names(mat): mat.pop('attrNames')

def lose_an_image(mat): mat['attrs'] = mat['attrs'][:1]

def another_shape(mat): mat['attrs'][1]['objs'][0]['map'] = np.ones((6, 8))

def eleven_features(mat): mat['attrs'][1]['objs'][0]['features'] = np.ones(11)

def lose_maps(mat): mat['attrs'][1]['objs'][0].pop('map')

def an_image_twice(mat): mat['attrs'] = cell([*mat['attrs'], mat['attrs'][1]])

BROKEN_ATTRS = { # what is wrong -> change of the file's variables, words, kind
    'no names': (lose_names, 'attrNames', 'unreadable regions'),
    'an image missing': (lose_an_image, 'no regions for 1002', 'image without regions'),
    'a map of another shape': (another_shape, '(6, 8)', 'unreadable regions'),
    'eleven features': (eleven_features, '11 features', 'unreadable regions'),
    'objects without maps': (lose_maps, 'map', 'unreadable regions'),
    'an image twice': (an_image_twice, 'twice', 'same id twice'),
}

@pytest.mark.parametrize('change, words, kind', BROKEN_ATTRS.values(), ids=BROKEN_ATTRS)
def test_broken_attrs_mat_is_a_sentence_or_leaves_its_image_out(change, words, kind, tmp_path):
    osie_stimuli(tmp_path, (8, 6))
    faces = [cell([osie_object(slice(99), slice(99), 'face')]) for _ in range(2)]
    attrs = [dict(img='1001.jpg', objs=faces[0]), dict(img='1002.jpg', objs=faces[1])]
    mat = dict(attrs=cell(attrs), attrNames=cell(OSIE_ATTRIBUTES))
    change(mat)
    savemat(tmp_path/'attrs.mat', mat, do_compression=True)
    with pytest.raises(DataError) as e: osie_objects(tmp_path/'attrs.mat', tmp_path/'stimuli')
    assert words in str(e.value) and 'attrs.mat' in str(e.value)
    if change is lose_names: return
    problems = lenient()
    kept = osie_objects(tmp_path/'attrs.mat', tmp_path/'stimuli', problems=problems)
    assert kept.ids == ['1001'] and [p.kind for p in problems] == [kind]

# ---- COCO

THIN = {
    'a point': [[7, 7]],
    'a line': [[7, 7, 9, 9]],
    'null': None,
    'an empty list': [],
    'an empty polygon': [[]],
    'two lines': [[1, 1, 2, 2], [3, 3, 4, 4]],
}

@pytest.mark.parametrize('kind', [*THIN, 'missing'])
def test_a_part_without_area_is_left_out_not_its_image(kind, tmp_path):
    images = with_images(tmp_path, 'a')
    part = dict(category_id=2) | ({} if kind == 'missing' else dict(segmentation=THIN[kind]))
    r = from_coco(tmp_path, coco(SQUARE, part | dict(bbox=BOX)), images)
    assert r.masks('a', (6, 8))[0] == r.semantics == ['dog'] and r.left_out['segments without area'] == 1
    note, = r.notes
    assert note.kind == 'region without area' and note.image == 'a' and "'cat' of a" in note.sentence
    with pytest.raises(DataError): # without a box it cannot be understood
        from_coco(tmp_path, coco(SQUARE, part), images).masks('a', (6, 8))

@pytest.mark.parametrize('thin', [[7, 7], [7, 7, 9, 9], []])
def test_thin_polygons_beside_others_are_left_out_alone(thin, tmp_path):
    images = with_images(tmp_path, 'a')
    whole, mixed = (from_coco(tmp_path, coco(s), images) for s in (SQUARE, [thin, *SQUARE]))
    assert (whole.masks('a', (30, 40))[1] == mixed.masks('a', (30, 40))[1]).all()
    assert mixed.left_out['segments without area'] == 1

@pytest.mark.parametrize('segment', [
    [[float('nan')] * 4],
    [['a', 'b']],
    dict(size=[30, 40], counts=[5]),
    'all',
    [[1, 1, 5, 5, 9]],
    [[1, 1, 5, 5, 1e9, 5]],
])
def test_a_broken_segment_stays_a_fault_though_it_has_a_box(segment, tmp_path):
    images = with_images(tmp_path, 'a')
    data = coco(SQUARE, dict(segmentation=segment, bbox=BOX))
    with pytest.raises(DataError) as e: from_coco(tmp_path, data, images).masks('a', (6, 8))
    assert said(e) and e.value.kind == 'unreadable regions'

PARTS = [dict(segmentation=SQUARE, image_id=1, category_id=1)]
POINTS = [dict(segmentation=SQUARE, keypoints=[1, 2, 2], category_id=1)]
CAPTIONS = [dict(image_id=1, id=3, caption='objects')]
LOOKED = [dict(image_id=1, worker_id=2, fixations=[[1, 2]])]
PANOPTIC = [dict(segments_info=[], file_name='a.png')]
FRAMES = [dict(id=1, file_name='a.jpg')]
SCANPATHS = [dict(name='1.jpg', subject=1, task='objects', condition='freeview', X=[1.], Y=[2.], T=[3])]

LOOKS = { # what -> content, layout; the first key of the JSON differs
    'COCO, annotations first': (dict(annotations=PARTS, images=[], categories=[]), 'coco'),
    'COCO, another first key': (
        dict(type='instances', categories=[], images=[], annotations=[dict(bbox=BOX, category_id=1)]),
        'coco',
    ),
    'panoptic': (dict(info=dict(objects=3), images=[], annotations=PANOPTIC), 'coco'),
    'SALICON': (dict(info={}, licenses=[], images=FRAMES, annotations=LOOKED), 'fixations'),
    'captions': (dict(info={}, images=[dict(id=1)], annotations=CAPTIONS), 'captions'),
    'key points': (dict(info={}, images=[], annotations=POINTS), 'key points'),
    'GQA': (dict(a=graph(thing())), 'gqa'),
    'GQA, an id with dots': ({'a.b.jpg': graph(thing())}, 'gqa'),
    'GQA, called images': (dict(images=graph(thing())), 'gqa'),
    'VG': ([dict(image_id=1, relationships=[], objects=[thing()])], 'vg'),
    'VG attributes': ([dict(image_id=1, attributes=[thing()])], ''),
    'COCO-FreeView': (SCANPATHS, ''),
    'a list in a table': (dict(item=dict(objects=[])), ''),
    'numbers': ([1, 2], ''),
}

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('kind', LOOKS)
def test_a_json_file_is_known_by_its_content(kind, encoding, tmp_path):
    content, layout = LOOKS[kind]
    path = write(tmp_path/'some.json', content, encoding)
    assert json_layout(path) == layout
    if layout in ('coco', 'gqa', 'vg'): return
    with pytest.raises(DataError) as e: read_regions(path)
    assert 'some.json' in said(e) and (layout or 'no known regions') in said(e)

@pytest.mark.parametrize('text', ['{"images": [', '{"annotations": [}', '{"categories": [1], "x'])
def test_a_broken_coco_file_is_told_by_its_reader(text, tmp_path):
    with_images(tmp_path, 'a')
    (tmp_path/'c.json').write_text(text)
    with pytest.raises(DataError, match='not valid JSON'): read_regions(tmp_path)

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32'])
def test_scene_graphs_and_coco_in_any_encoding(encoding, tmp_path):
    images = with_images(tmp_path, 'é')
    data = coco(SQUARE, images=[dict(id=1, file_name='é.png', width=40, height=30)])
    found = [
        from_graphs(tmp_path, {'é': graph(thing('café'))}, images, encoding=encoding),
        read_regions(write(tmp_path/'c.json', data, encoding)),
        from_vg(tmp_path, [dict(image_id='é', objects=[thing()])], images, encoding=encoding),
    ]
    assert [r.ids for r in found] == [['é']] * 3 and found[0].semantics == ['café']

# ---- names of images, hidden files

WRITTEN = {
    'Windows path': 'C:\\data\\val\\café.png',
    'path': 'val2017/café.PNG',
    'two characters': unicodedata.normalize('NFD', 'café.jpg'),
    'id': 'café',
    'blanks': ' café.png ',
}

@pytest.mark.parametrize('kind', WRITTEN)
def test_images_are_found_however_their_name_is_written(kind, tmp_path):
    name, images = WRITTEN[kind], with_images(tmp_path, unicodedata.normalize('NFD', 'café'))
    (tmp_path/'c').mkdir()
    cv2.imwrite(str(tmp_path/'c/café.png'), np.dstack([DISC * 0, DISC * 0, DISC]).astype(np.uint8))
    frames = [dict(id=1, file_name=name, width=40, height=30)]
    segments = [dict(id=1, category_id=1)]
    panoptic = coco(images=frames, annotations=[dict(image_id=1, file_name=name, segments_info=segments)])
    folder = unicodedata.normalize('NFD', 'café') if 'path' in kind else name.strip()
    put_mask(tmp_path/'m'/folder/'dog.PNG')
    found = [
        from_graphs(tmp_path, {name: graph(thing())}, images),
        from_vg(tmp_path, [dict(image_id=name, objects=[thing()])], images),
        coco_regions(write(tmp_path/'i.json', coco(SQUARE, images=frames)), images),
        from_coco(tmp_path, panoptic, images),
        mask_regions(tmp_path/'m', images),
    ]
    for r in found: assert r.ids == ['café'] and len(r.masks('café', (6, 8))[0]) == 1

@pytest.mark.parametrize('where', ['../secret/a.png', '{root}/secret/a.png', '..\\secret\\a.png'])
def test_a_path_in_the_json_is_never_followed(where, tmp_path):
    images = with_images(tmp_path, 'a')
    for folder in ('secret', 'p'): (tmp_path/folder).mkdir()
    cv2.imwrite(str(tmp_path/'secret/a.png'), np.full((30, 40, 3), [0, 0, 1], np.uint8))
    path = where.replace('{root}', str(tmp_path))
    annotation = dict(image_id=1, file_name=path, segments_info=[dict(id=1, category_id=1)])
    data = coco(annotations=[annotation])
    annotated = write(tmp_path/'p.json', data)
    with pytest.raises(DataError) as e: coco_regions(annotated, images).masks('a', (6, 8))
    assert 'no such file' in str(e.value) and 'secret' not in str(e.value)

HIDDEN = ['stimuli/._a.png', 'labels/._a.mat', 'masks/a/._dog.png', 'masks/a/Thumbs.db', 'images/._a.png',
          'images/__MACOSX/a.png', '._c.json']

@pytest.mark.parametrize('name', ['masks', 'labels', 'images', 'json'])
def test_hidden_files_are_passed_over(name, tmp_path):
    for folder in ('masks/.ipynb_checkpoints', 'masks/__MACOSX'): (tmp_path/folder).mkdir(parents=True)
    for path in HIDDEN:
        (tmp_path/path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/path).write_bytes(b'\0')
    images = with_images(tmp_path, 'a')
    put_mask(tmp_path/'masks/a/dog.png')
    if name == 'labels':
        Image.new('RGB', (8, 6)).save(tmp_path/'stimuli/a.png')
        content = dict(data=np.ones((12, *OSIE_FRAME), np.uint8))
        savemat(tmp_path/'labels/a.MAT', content, appendmat=False, do_compression=True)
        assert osie_regions(tmp_path/'labels', tmp_path/'stimuli').masks('a', (6, 8))[1].all()
    if name in ('masks', 'images'): assert mask_regions(tmp_path/'masks', images).semantics == ['dog']
    if name == 'json':
        path = write(tmp_path/'j/c.json', coco(SQUARE))
        assert region_layouts(path.parent) == [('coco', path)]

def images_twice(folder):
    (folder/'images/more').mkdir()
    Image.new('RGB', (40, 30)).save(folder/'images/more/a.jpg')
    return gqa_regions, write(folder/'g.json', dict(a=graph(thing()), b=graph(thing())))

def folders_twice(folder):
    for name in ('a', 'a.png', 'b'): put_mask(folder/'m'/name/'dog.png')
    return mask_regions, folder/'m'

def listed_twice(folder):
    names = ['train/a.png', 'val/a.png', 'b.png']
    frames = [dict(id=k, file_name=n, width=40, height=30) for k, n in enumerate(names)]
    segments = [dict(image_id=k, segmentation=SQUARE) for k in range(3)]
    return coco_regions, write(folder/'c.json', coco(*segments, images=frames))

def graphs_twice(folder):
    graphs = dict.fromkeys(['a', 'b', 'x/a.jpg'], graph(thing()))
    return gqa_regions, write(folder/'g.json', graphs)

TWICE = dict(images=images_twice, folders=folders_twice, listed=listed_twice, graphs=graphs_twice)

@pytest.mark.parametrize('kind', TWICE)
def test_only_what_is_there_twice_is_a_fault(kind, tmp_path):
    images = with_images(tmp_path, 'a', 'b')
    reader, path = TWICE[kind](tmp_path)
    options = dict(min_images=1) if reader is gqa_regions else {}
    with pytest.raises(DataError) as e: reader(path, images, **options)
    assert said(e) and e.value.kind == 'same id twice'
    problems = lenient()
    found = reader(path, images, **options, problems=problems)
    assert 'b' in found.ids and {p.kind for p in problems} == {'same id twice'} and problems.images == {'a'}

# ---- what is cut or left out, one by one

def with_dog(**change): return graph(thing(), thing('dog', **change))

NOTED = { # what -> graph of image a, kind of the note, words
    'no width': (with_dog(w=0), 'region without area', "'dog' of a at x, y, w, h = 0, 0, 0, 10 has no area"),
    'negative height': (with_dog(h=-3.5), 'region without area', '0, 0, 20, -3.5 has no area'),
    'left of the image': (with_dog(x=-2), 'region outside the image', 'leaves the image of 30 x 40 px'),
    'below the image': (with_dog(y=22), 'region outside the image', '0, 22, 20, 10 leaves'),
    'far away': (with_dog(x=900), 'region outside the image', '900, 0, 20, 10 leaves'),
    'no object': (graph(), 'empty regions', 'the scene graph of a names nothing'),
    'no name': (graph(thing(), thing('--')), 'empty regions', "'--' of a at"),
}

@pytest.mark.parametrize('content, kind, words', NOTED.values(), ids=NOTED)
def test_what_is_cut_or_left_out_is_told(content, kind, words, tmp_path):
    graphs = dict(a=content, b=graph(thing(x=-1), thing(y=20.9)))
    r = from_graphs(tmp_path, graphs, with_images(tmp_path, 'a', 'b')) # strict: notes stop nothing
    note, = r.notes
    assert (note.kind, note.image) == (kind, 'a') and words in note.sentence
    assert str(tmp_path/'g.json') in note.sentence and note.sentence.endswith('.')

def test_a_box_within_a_pixel_of_the_border_is_not_told(tmp_path):
    wide = graph(thing(x=-1, y=-.5, w=42, h=31.4))
    r = from_graphs(tmp_path, dict(a=wide), with_images(tmp_path, 'a'))
    assert not r.notes and r.masks('a', (3, 4))[1].all()

@pytest.mark.parametrize('size, told', [
    ((60, 80), False),
    ((300, 404), False),
    ((30, 42), True),
    ((40, 30), True),
])
def test_a_graph_of_another_size_is_told_beside_the_fixations(size, told, tmp_path):
    images = with_images(tmp_path, 'a')
    gqa = from_graphs(tmp_path, dict(a=graph(thing())), images)
    for r in (gqa, from_coco(tmp_path, coco(SQUARE), images)):
        found = r.other_sizes({'a': size, 'stranger': (1, 9)})
        assert [p.kind for p in found] == ['scene graph of another size'] * told
        assert all('for 30 x 40 px' in p.sentence for p in found)
        assert not r.other_sizes({'a': (np.nan, np.nan)})

@pytest.mark.parametrize('kind', ['graphs', 'masks'])
def test_images_and_regions_without_each_other_are_told(kind, tmp_path):
    images = with_images(tmp_path, 'a', 'bare')
    for i in ('a', 'alone'): put_mask(tmp_path/'m'/i/'dog.png')
    graphs = dict(a=graph(thing()), alone=graph(thing()))
    r = mask_regions(tmp_path/'m', images) if kind == 'masks' else from_graphs(tmp_path, graphs, images)
    assert len(r.notes) == 2
    told = {(p.image, p.kind) for p in r.notes}
    assert told == {('alone', 'regions without image'), ('bare', 'image without regions')}

"""Fixations: every layout from a real or a generated fixture.

What broken input does in strict and in lenient mode, and what flipping or scaling must not change.
"""
import json, shutil, struct, zlib
from collections import namedtuple
from itertools import product
from pathlib import Path
from types import SimpleNamespace
import h5py, numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix
from torch.utils.data import DataLoader
from saliency_nb.core import DataError, ParameterError, Problems, rng
from saliency_nb.fixation_readers import LAYOUTS, read_fixations, read_pysaliency
from saliency_nb.fixation_layouts import found_fixations, read_codecharts, read_mit1003
from saliency_nb.fixation_exports import read_csv
from saliency_nb.fixations import (FIXATION_COLUMNS, FixationSet, SaliencyDataset, check_images, density,
                                   fixation_map, read_osie, read_salicon)
from saliency_nb.pictures import load_map
from saliency_nb.metrics import auc_judd, cc, kld, nss, sim

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent/'shared/data'
H, W = SIZE = 48, 64
IDS = ['a', 'b', 'c']

# ---------------------------------------------------------------- the published layouts, small

def picture(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng(seed, path.name).integers(0, 255, (*size, 3), np.uint8)).save(path)

def grey(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = dict(quality=95) if path.suffix == '.jpg' else {}
    Image.fromarray(pixels).save(path, **quality)

def points(k, size=SIZE):
    "1-based (x, y), different for each k; the last one is the last pixel."
    g = rng(k, 'points')
    x, y = g.integers(1, size[1] + 1, 5), g.integers(1, size[0] + 1, 5)
    return np.column_stack([np.append(x, size[1]), np.append(y, size[0])])

def gaze(observers, **more):
    "SALICON's struct array: `fixations`, raw samples in `location` and `timestamp`."
    names = ['location', 'timestamp', 'fixations', *more]
    array = np.zeros(len(observers), [(n, object) for n in names])
    for k, xy in enumerate(observers):
        array[k] = np.zeros((9, 2)), np.arange(9.), xy, *[v[k] for v in more.values()]
    return array

def mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, long_field_names=True)

def salicon(root, dtype=np.uint16, maps='.png', **more):
    "SALICON's folders; 2015: unsigned integers, 2017: doubles. The third observer looked nowhere."
    for k, i in enumerate(IDS):
        picture(root/f'images/train/{i}.jpg')
        observers = [points(2 * k).astype(dtype), points(2 * k + 1)[:1].astype(dtype), np.zeros((0, 2))]
        path = root/f'fixations/train/{i}.mat'
        mat(path, gaze=gaze(observers, **more), resolution=np.array(SIZE), image=i)
        if not maps: continue
        x, y = points(2 * k).T - .5
        blurred = density(fixation_map(x, y, SIZE, SIZE), 3)
        grey(root/f'maps/train/{i}{maps}', (blurred * 9999).astype(np.uint8))
    return root

def salicon_2017(root): return salicon(root, float, '.jpg')

def authors(root):
    "Maps of fixations; that of image b is sparse."
    for k, i in enumerate(IDS):
        picture(root/f'images/train/{i}.jpg')
        x, y = points(k).T - 1
        looked = (fixation_map(x, y, SIZE, SIZE) > 0).astype(np.uint8)
        sparse = csc_matrix((np.ones(len(x)), (y, x)), SIZE)
        mat(root/f'fixations/train/{i}.mat', fixationPts=sparse if k == 1 else looked)
    return root

def salicon_json(root):
    for i in IDS: picture(root/f'images/train2014/{i}.jpg')
    images = [dict(id=k, file_name=f'{i}.jpg', height=H, width=W) for k, i in enumerate(IDS)]
    annotations = []
    for k, worker in product(range(3), (7, 8)):
        fixations = points(k)[:, ::-1].tolist()
        annotations.append(dict(image_id=k, worker_id=worker, id=9 * k + worker, fixations=fixations))
    text = json.dumps(dict(images=images, annotations=annotations))
    (root/'fixations_train2014.json').write_text(text)
    return root

def osie_subject(k):
    p = points(k)
    return dict(fix_x=p[:, 0], fix_y=p[:, 1], fix_duration=np.arange(100, 100 + len(p)))

def osie(root):
    names = ['1001', '1002', '1003']
    images = []
    for k, i in enumerate(names):
        picture(root/f'stimuli/{i}.jpg', (600, 800))
        subjects = [osie_subject(2 * k), osie_subject(2 * k + 1)]
        images.append(dict(img=f'{i}.jpg', subjects=np.array(subjects, object)))
        clicks = dict(subj=np.repeat([3, 5], 3), coord=points(k)[:, ::-1], order=np.tile([1, 2, 3], 2))
        mat(root/f'mouse_lab/{i}.mat', fixations=clicks)
    mat(root/'eye/fixations.mat', fixations=np.array(images, object))
    return root

LONG = 'istatic_' + 60 * 'x' # MATLAB cuts names of variables after 63 letters

def mit1003(root):
    for k, i in enumerate((LONG, 'i2', 'i3')):
        picture(root/f'ALLSTIMULI/{i}.jpeg', (300, 400))
        gazed = samples([(200, 150), (60 + k, 70), (-1, -1), (300, 200), (399, 500)])
        held = dict(imgName=f'{i}.jpeg', DATA=dict(eyeData=gazed))
        for o in ('ajs', 'CNG'): mat(root/f'DATA/{o}/{i}.mat', **{i[:63]: held})
        grey(root/f'ALLFIXATIONMAPS/{i}_fixPts.jpg', dots([(60 + k, 70), (300, 200)], (300, 400)))
        grey(root/f'ALLFIXATIONMAPS/{i}_fixMap.jpg', np.full((300, 400), 9 + k, np.uint8))
    return root

def samples(places, each=60):
    "So many samples (x, y, 1) around each place; those of a blink at (-1, -1) are all the same."
    def around(x, y):
        noise = rng(0, x, y).normal(0, 1, (each, 3))
        return np.full((each, 3), (x, y, 1.)) + noise * (x > 0)
    return np.concatenate([around(*p) for p in places])

def dots(places, size):
    m = np.zeros(size, np.uint8)
    for x, y in places: m[y, x] = 255
    return m

def cat2000(root):
    for c in ('Action', 'Sketch'):
        picture(root/f'trainSet/Stimuli/{c}/001.jpg')
        picture(root/f'trainSet/Stimuli/{c}/Output/001_SaliencyMap.jpg')
        mat(root/f'trainSet/FIXATIONLOCS/{c}/001.mat', fixLocs=dots([(0, 0), (63, 47), (5, 9)], SIZE) > 0)
        grey(root/f'trainSet/FIXATIONMAPS/{c}/001.jpg', np.full(SIZE, 50, np.uint8))
    return root

def codecharts(root):
    for k, i in enumerate(IDS):
        picture(root/f'raw_img/{i}.jpg')
        for n, t in enumerate((500, 3000, 5000)):
            grey(root/f'fix_maps/{t}/{i}.png', dots([(k, n), (40 + n, 30)], SIZE))
            grey(root/f'heatmaps/{t}/{i}.png', np.full(SIZE, 1 + n, np.uint8))
    (root/'splits.json').write_text('{}')
    return root

TABLE = '''image,observer,group,x,y,t,duration,device
a.png,007,control,10.25,20.5,300,120,eye
a.png,007,control,1,2,0,130,eye
b,8,autism,63.9,47.9,0,,eye
c.png,8,autism,5,6,,90,eye
'''

def own(root):
    for i in IDS: picture(root/f'images/{i}.png')
    (root/'fixations.csv').write_text(TABLE)
    return root

# ---------------------------------------------------------------- each is read, through the one door

ALL = dict(salicon_2015=salicon, salicon_2017=salicon_2017, authors=authors, salicon_json=salicon_json,
           osie=osie, mit1003=mit1003, cat2000=cat2000, codecharts=codecharts, own=own)

@pytest.mark.parametrize('layout', ALL)
def test_read_by_layout(layout, tmp_path):
    found = read_fixations(ALL[layout](tmp_path))
    assert isinstance(check_images(found), FixationSet) and len(found) == (2 if layout == 'cat2000' else 3)
    assert list(found.fixations.columns[:8]) == FIXATION_COLUMNS
    assert found.images.columns[:5].tolist() == ['path', 'height', 'width', 'map_path', 'split']
    assert set(found.fixations.image) == set(found.ids) and found.sigma > 0
    for item in SaliencyDataset(found, (24, 32)).__getitems__(range(len(found))):
        assert item['fixations'].sum() == (found.fixations.image == item['id']).sum()
        assert abs(item['density'].sum() - 1) < 1e-5

def xy(found, image, **where):
    f = found.fixations[(found.fixations.image == image)]
    for k, v in where.items(): f = f[f[k] == v]
    return f[['x', 'y']].to_numpy()

@pytest.mark.parametrize('layout', [salicon, salicon_2017])
def test_salicon(layout, tmp_path):
    found = read_salicon(layout(tmp_path))
    f = found.fixations
    assert (xy(found, 'b', observer='0') == points(2) - .5).all()
    assert (xy(found, 'b', observer='1') == points(3)[:1] - .5).all()
    assert f.order.tolist() == [0, 1, 2, 3, 4, 5, 0] * 3 and f.t.isna().all()
    assert found.images.map_path.notna().all()
    made, official = SaliencyDataset(found, SIZE)[0]['density'], load_map(found.images.map_path.iloc[0])
    assert np.allclose(made, official / official.sum(), atol=1e-7)

def test_salicon_with_group_and_durations(tmp_path):
    lengths, groups = [6, 1, 0], ['control', 'autism', 'autism']
    root = salicon(tmp_path, group=groups, durations=[np.full(n, 200.) for n in lengths])
    for i in IDS: # timestamps of fixations, as in generated worlds
        durations = [np.full(6, 200.), np.full(1, 90.)]
        g = gaze([points(1), points(2)[:1]], durations=durations, group=['control', 'autism'])
        g[0]['timestamp'], g[1]['timestamp'] = np.arange(6) * 300., np.zeros(1)
        mat(root/f'fixations/train/{i}.mat', gaze=g, resolution=np.array(SIZE))
    f = read_salicon(root).fixations
    lasting = f[f.image == 'a'].groupby('group').duration.sum()
    assert lasting.to_dict() == {'autism': 90, 'control': 1200} and f.t.max() == 1500

def test_salicon_with_empty_groups(tmp_path):
    found = read_salicon(salicon(tmp_path, group=['', '', ''])) # MATLAB's empty string is an empty array
    assert not (found.fixations.group != '').any()

def test_authors_maps_keep_every_pixel(tmp_path):
    found = read_fixations(authors(tmp_path))
    for k, i in enumerate(IDS):
        assert {*map(tuple, xy(found, i))} == {*map(tuple, points(k) - .5)}
    assert (found.fixations.observer == '').all() and (found.fixations.order == -1).all()

def test_salicon_json_is_row_column(tmp_path):
    found = read_fixations(salicon_json(tmp_path))
    assert (xy(found, 'c', observer='8') == points(2) - .5).all() and found.fixations.observer.nunique() == 2

def test_osie_views(tmp_path):
    osie(tmp_path)
    eye, mouse = read_fixations(tmp_path), read_fixations(tmp_path, view='mouse_lab')
    assert (xy(eye, '1002', observer='1') == points(3) - .5).all()
    assert eye.fixations.t.iloc[2] == 201 and eye.px_per_degree == 24
    assert (xy(mouse, '1003') == points(2) - .5).all() and mouse.fixations.order.tolist() == [0, 1, 2] * 6
    assert set(mouse.fixations.observer) == {'3', '5'}

def test_mit1003_samples_and_pictures(tmp_path):
    found = read_mit1003(mit1003(tmp_path/'mit'))
    places = [(60, 69), (299, 199)] # from 1: pixel k covers [k - 1, k)
    assert np.allclose(xy(found, 'i2', observer='ajs'), places, atol=.6)
    assert found.left_out == 6 and set(found.fixations.observer) == {'ajs', 'CNG'}
    assert found.fixations.order.tolist() == [1, 2] * 6
    assert read_mit1003(tmp_path/'mit', first=True).fixations.order.tolist() == [0, 1, 2] * 6
    shutil.rmtree(tmp_path/'mit/DATA')
    pictures = read_mit1003(tmp_path/'mit')
    assert (xy(pictures, 'i2') == [(61.5, 70.5), (300.5, 200.5)]).all() and len(pictures.fixations) == 6

def test_cat2000(tmp_path):
    found = read_fixations(cat2000(tmp_path))
    assert found.ids == ['Action_001', 'Sketch_001']
    assert found.images.category.tolist() == ['Action', 'Sketch']
    assert (xy(found, 'Sketch_001') == [(.5, .5), (5.5, 9.5), (63.5, 47.5)]).all()
    assert found.images.map_path.notna().all()

def test_codecharts_viewing_time(tmp_path):
    everything, one = read_fixations(codecharts(tmp_path)), read_codecharts(tmp_path, time=3000)
    assert everything.fixations.groupby('t').size().to_dict() == {500: 6, 3000: 6, 5000: 6}
    assert everything.images.map_path.isna().all()
    assert (xy(one, 'b') == [(1.5, 1.5), (41.5, 30.5)]).all() and '/3000/' in one.images.map_path.iloc[0]
    with pytest.raises(ParameterError, match='500, 3000, 5000'): read_codecharts(tmp_path, time=700)

def test_own_table(tmp_path):
    found = read_fixations(own(tmp_path), sigma=2)
    f = found.fixations
    assert f.observer.tolist() == ['007', '007', '8', '8']
    assert f.group.tolist() == ['control', 'control', 'autism', 'autism']
    assert f.device.eq('eye').all() # further columns are kept
    assert np.isnan(f.duration[2]) and found.sigma == 2
    from_1 = read_csv(tmp_path/'fixations.csv', origin=.5) # pixels counted from 1
    assert (xy(from_1, 'c') == (4.5, 5.5)).all()
    (tmp_path/'fixations.csv').write_text('image,x,y,t\na,1,1,9\na,2,2,3\nb,5,5,0\nc,1,1,0\n')
    found = read_fixations(tmp_path)
    assert found.fixations.order.tolist() == [1, 0, 0, 0] and found.sigma == pytest.approx(.03 * W)

def looks(**changed):
    "Fixations like pysaliency's: two on stimulus 0, one on stimulus 1."
    places = dict(x=[3., 5, 7.5], y=[1., 2, 3], t=[0, .3, 0], n=[0, 0, 1])
    return SimpleNamespace(**places | dict(subjects=[4, 4, 5], lengths=[0, 1, 0]) | changed)

def test_objects_like_pysaliency(tmp_path):
    pixels = [rng(k, 'p').integers(0, 255, (*SIZE, 3)) for k in range(2)]
    stimuli = SimpleNamespace(stimuli=pixels, sizes=[SIZE] * 2)
    found = read_pysaliency(stimuli, looks(duration=[.2, .1, .3]), folder=tmp_path)
    f = found.fixations
    assert found.ids == ['0000', '0001'] and f.t.tolist() == [0, 300, 0]
    assert f.duration.tolist() == [200, 100, 300] and f.order.tolist() == [0, 1, 0]
    assert (xy(found, '0001') == (7.5, 3)).all() and check_images(found)
    with pytest.raises(ParameterError, match='give a folder'): read_pysaliency(stimuli, looks())
    assert read_pysaliency(stimuli, looks(), unit=None, folder=tmp_path).fixations.t.isna().all()

def test_pysaliency_itself(tmp_path):
    try: import pysaliency
    except ImportError as e:
        pytest.skip(f'pysaliency does not import here ({e}); it needs setuptools < 81, see TOOLING')
    files = [tmp_path/'x/001.png', tmp_path/'y/001.png']
    for path in files: picture(path)
    stimuli = pysaliency.FileStimuli(list(map(str, files)))
    trains = pysaliency.FixationTrains.from_fixation_trains(
        [[1, 2.5], [3]], [[1, 2], [4]], [[0, .3], [0]], [0, 1], [0, 1], # x, y, t, stimulus, subject
        scanpath_fixation_attributes={'durations': [[.1, .2], [.3]]},
        scanpath_attribute_mapping={'durations': 'duration'},
    )
    found = check_images(read_pysaliency(stimuli, trains))
    assert found.ids == ['x_001', 'y_001'] and (xy(found, 'x_001') == [(1, 1), (2.5, 2)]).all()
    assert found.images[['height', 'width']].eq(SIZE).all(axis=None)
    times = found.fixations[['order', 't', 'duration']].to_numpy().round(6)
    assert times.tolist() == [[0, 0, 100], [1, 300, 200], [0, 0, 300]]
    memory = pysaliency.Stimuli([np.zeros((*SIZE, 3), np.uint8)] * 2)
    assert len(check_images(read_pysaliency(memory, trains, folder=tmp_path))) == 2

# ---------------------------------------------------------------- real files

def real(name): return pytest.mark.skipif(not (REAL/name).is_dir(), reason=f'{REAL/name} is not here')

@real('salicon_examples')
def test_real_salicon_json():
    found = check_images(read_fixations(REAL/'salicon_examples'))
    text = (REAL/'salicon_examples/fixations_train2014examples.json').read_text()
    annotations = json.loads(text)['annotations']
    f = found.fixations
    assert len(found) == 10 and len(f) == sum(len(a['fixations']) for a in annotations)
    assert f.groupby(['image', 'observer']).ngroups == 610
    first = annotations[0]
    of_first = xy(found, 'COCO_train2014_000000123855', observer=str(first['worker_id']))
    assert (of_first[:, ::-1] + .5).tolist() == first['fixations']

@real('osie')
def test_real_osie_as_in_its_files():
    raw = loadmat(REAL/'osie/eye/fixations.mat')['fixations'] # another way through the same file
    eye = read_fixations(REAL/'osie')
    assert len(eye) == 700 and len(eye.fixations) == 98_321 and eye.left_out == 0
    for k in range(0, 700, 70):
        one = raw[k, 0][0, 0]
        subjects = [s[0, 0] for s in one['subjects'].ravel()]
        f = eye.fixations[eye.fixations.image == Path(one['img'][0]).stem]
        found = dict(fix_x=f.x + .5, fix_y=f.y + .5, fix_duration=f.duration)
        for field, values in found.items():
            assert np.allclose(values, np.concatenate([s[field].ravel() for s in subjects]))

@real('osie')
def test_real_osie_enrichment_of_text_and_touch():
    "The published yardstick (../shared/data/README.md), computed here pixel by pixel for two attributes."
    inside, expected = np.zeros(2), np.zeros(2)
    for i, f in read_osie(REAL/'osie').fixations.groupby('image'):
        marked = loadmat(REAL/f'osie/labels/{i}.mat')['data']
        hit = fixation_map(f.x, f.y, (600, 800), (600, 800))
        for k, attribute in enumerate((0, 6)): # text, touch
            inside[k] += hit[marked[attribute] > 0].sum()
            expected[k] += (marked[attribute] > 0).mean() * len(f)
    assert (inside / expected) == pytest.approx([8.4, 2.2], rel=.03)

# ---------------------------------------------------------------- broken input

def cut(path, share=.5): path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])

def empty(path): path.write_bytes(b'')

def text(path): path.write_text('<html>404</html>')

def matlab73(path):
    "A file of MATLAB 7.3 whose gaze is a list of numbers."
    with h5py.File(path, 'w', userblock_size=512) as f: f['gaze'] = np.zeros(3)
    with open(path, 'r+b') as f: f.write(b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\x00\x02IM')

def bomb(path):
    "The header of a PNG of 40,000 x 40,000 px."
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 40000, 40000, 8, 2, 0, 0, 0))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + header + chunk(b'IEND', b''))

def write_shares(path): path.write_text('image,x,y\na,.5,.5\nb,.2,1\nc,0,.3\n')

def write_latin(path): path.write_bytes(TABLE.replace('control', 'Kontrolle f\xfcr').encode('latin-1'))

def empty_each(folder):
    for path in folder.iterdir(): empty(path)

def unlink_each(folder):
    for path in folder.iterdir(): path.unlink()

def lose_image(root):
    for path in (IMAGE_B, MAP_B): (root/path).unlink()

def copy_table(root): shutil.copy(root/CSV, root/'more.csv')

def lose_annotations(content): content.pop('annotations')

def lose_b(content): del content['annotations'][2:4]

def x_before_y(content):
    for a in content['annotations'][2:4]: a['fixations'] = [[60, 20]]

def three_numbers(content): content['annotations'][2]['fixations'] = [[6, 2, 1]]

def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))

def at(name, change, *args, **options):
    "The damage of one file of the folder that is read."
    return lambda root: change(root/name, *args, **options)

GAZE_B = 'fixations/train/b.mat'
IMAGE_B = 'images/train/b.jpg'
MAP_B = 'maps/train/b.png'
JSON = 'fixations_train2014.json'
CSV = 'fixations.csv'

def rewritten(**variables):
    return at(GAZE_B, mat, **dict(gaze=gaze([points(1)]), resolution=np.array(SIZE)) | variables)

def looked(places): return rewritten(gaze=gaze([np.array(places)]))

def replaced(old, new): return at(CSV, Path.write_text, TABLE.replace(old, new))

NO_MAT = 'b.mat: not a readable MATLAB file'
NO_GAZE = "b.mat: does not hold SALICON's gaze"
NO_RESOLUTION = "b.mat: holds no variable 'resolution'"
NO_IMAGE = 'b.jpg: not a readable image'
NO_TABLE = 'fixations.csv: not a readable table'
NOTHING = 'nothing can be read' # a fault of the whole set: lenient mode raises as well

# how a layout is broken, what the sentence says, image that lenient mode leaves out ('': none), sentences
Fault = namedtuple('Fault', 'layout damage words out sentences', defaults=['b', 1])

SALICON = {
    'fixation file missing': Fault(salicon, at(GAZE_B, Path.unlink), 'b.mat: no such file'),
    'image file missing': Fault(salicon, lose_image, 'fixations of b, but no image'),
    'density missing for one image': Fault(
        salicon, at(MAP_B, Path.unlink), 'image b has no official density'),
    'density without image': Fault(
        salicon, at('maps/train/z.png', grey, np.ones(SIZE, np.uint8)), 'density of z, but no image', ''),
    'two images of one name': Fault(
        salicon, at('images/train/b.png', picture), 'b.jpg and b.png are two images'),
    'MATLAB file truncated': Fault(salicon, at(GAZE_B, cut), NO_MAT),
    'MATLAB file empty': Fault(salicon, at(GAZE_B, empty), NO_MAT),
    'MATLAB file is a web page': Fault(salicon, at(GAZE_B, text), NO_MAT),
    'MATLAB 7.3 of something else': Fault(salicon, at(GAZE_B, matlab73), NO_RESOLUTION),
    'no gaze': Fault(
        salicon, at(GAZE_B, mat, resolution=np.array(SIZE)), "b.mat: holds no variable 'gaze'"),
    'no resolution': Fault(salicon, at(GAZE_B, mat, gaze=gaze([points(0)])), NO_RESOLUTION),
    'resolution of three numbers': Fault(salicon, rewritten(resolution=[H, W, 3]), NO_GAZE),
    'gaze is a number': Fault(salicon, rewritten(gaze=3.), NO_GAZE),
    'fixations of three columns': Fault(salicon, looked(np.ones((4, 3))), 'shape (4, 3) in place of n x 2'),
    'fixations are words': Fault(salicon, rewritten(gaze=gaze(['middle'])), NO_GAZE),
    'nobody looked': Fault(salicon, looked(np.zeros((0, 2))), 'b.mat: the image has no fixations'),
    'axes swapped': Fault(salicon, looked([[20, 60]]), '(19.5, 59.5) of image b is no point'),
    'pixels counted from 0': Fault(salicon, looked([[0, 5]]), '(-0.5, 4.5) of image b is no point'),
    'fixation is no number': Fault(salicon, looked([[np.nan, 5]]), '(nan, 4.5) of image b is no point'),
    'infinite fixation': Fault(salicon, looked([[np.inf, 5]]), '(inf, 4.5) of image b is no point'),
    'more durations than fixations': Fault(
        salicon, rewritten(gaze=gaze([points(0)], durations=[np.ones(9)])), NO_GAZE),
    'no images at all': Fault(salicon, at('images/train', unlink_each), 'train: no images', NOTHING),
    'every image broken': Fault(
        salicon, at('fixations/train', empty_each), 'a.mat: not a readable MATLAB file', NOTHING),
    'image truncated': Fault(salicon, at(IMAGE_B, cut), NO_IMAGE),
    'image empty': Fault(salicon, at(IMAGE_B, empty), NO_IMAGE),
    'image is a web page': Fault(salicon, at(IMAGE_B, text), NO_IMAGE),
    'image of another size': Fault(
        salicon, at(IMAGE_B, picture, (50, 64)), 'b.jpg: the image is 50 x 64 px but its fixations'),
    'density unreadable': Fault(salicon, at(MAP_B, cut, .1), 'b.png: not a readable image'),
    'density zero everywhere': Fault(
        salicon, at(MAP_B, grey, np.zeros(SIZE, np.uint8)), 'b.png: the density is zero everywhere'),
    'density of another shape': Fault(
        salicon, at(MAP_B, grey, np.ones((64, 200), np.uint8)), 'b.png: the density is 64 x 200 px'),
}
OTHERS = {
    'authors: no map': Fault(
        authors, at(GAZE_B, mat, fixationPts=np.ones(7)), "b.mat: does not hold a map 'fixationPts'"),
    'authors: empty map': Fault(
        authors, at(GAZE_B, mat, fixationPts=np.zeros(SIZE)), 'image b has no fixations'),
    'folder missing': Fault(lambda r: r/'nowhere', lambda r: None, 'nowhere: no such folder', NOTHING),
    'unknown layout': Fault(lambda r: r, at('photos', Path.mkdir), 'no known layout', NOTHING),
    'JSON truncated': Fault(salicon_json, at(JSON, cut), JSON + ': not valid JSON', NOTHING),
    'JSON of something else': Fault(
        salicon_json, at(JSON, edit, lose_annotations),
        "does not hold SALICON's images and annotations", NOTHING),
    'two JSON files of one split': Fault(
        salicon_json, at('fixations_train_old.json', Path.write_text, '{}'),
        '2 files fixations_train*.json', NOTHING),
    'JSON: image file missing': Fault(
        salicon_json, at('images/train2014/b.jpg', Path.unlink), 'fixations of b, but no image'),
    'JSON: nobody looked': Fault(salicon_json, at(JSON, edit, lose_b), 'image b has no fixations'),
    'JSON: (x, y) in place of (row, column)': Fault(
        salicon_json, at(JSON, edit, x_before_y), '(19.5, 59.5) of image b'),
    'JSON: positions of three numbers': Fault(
        salicon_json, at(JSON, edit, three_numbers), 'positions of image b'),
    'OSIE: image not in the file': Fault(
        osie, at('stimuli/1009.jpg', picture, (600, 800)), 'no fixations for image 1009', '1009'),
    'OSIE: broken file': Fault(
        osie, at('eye/fixations.mat', text), 'fixations.mat: not a readable MATLAB file', NOTHING),
    'MIT1003: one observer missing': Fault(
        mit1003, at('DATA/ajs/i2.mat', Path.unlink), 'ajs/i2.mat: no such file', 'i2'),
    'MIT1003: no eye data': Fault(
        mit1003, at('DATA/ajs/i2.mat', mat, i2=dict(DATA=dict(gaze=1))),
        'i2.mat: does not hold a struct with DATA.eyeData', 'i2'),
    'CAT2000: locations missing': Fault(
        cat2000, at('trainSet/FIXATIONLOCS/Sketch/001.mat', Path.unlink),
        'Sketch/001.mat: no such file', 'Sketch_001'),
    'CAT2000: another variable': Fault(
        cat2000, at('trainSet/FIXATIONLOCS/Sketch/001.mat', mat, I=np.ones(SIZE)),
        "001.mat: holds no variable 'fixLocs'", 'Sketch_001'),
    'CodeCharts: one viewing time missing': Fault(
        codecharts, at('fix_maps/500/b.png', Path.unlink), '500/b.png: no such file'),
    'CodeCharts: positions of another size': Fault(
        codecharts, at('fix_maps/500/b.png', grey, dots([(1, 1)], (9, 9))),
        'b.png: 9 x 9 px but its image has 48 x 64'),
}
TABLES = {
    'table: no column y': Fault(
        own, replaced('x,y', 'x,z'), "no column 'y' among image, observer", NOTHING),
    'two tables': Fault(own, copy_table, '2 tables of fixations', NOTHING),
    'table: empty': Fault(own, at(CSV, empty), NO_TABLE, NOTHING),
    'table: a word in place of a number': Fault(
        own, replaced('63.9', 'left'), "line 4: x is 'left', which is no number"),
    'table: a duration that is none': Fault(
        own, replaced('47.9,0,,', '47.9,0,short,'), "line 4: duration is 'short'"),
    'table: coordinate missing': Fault(own, replaced('63.9', ''), '(nan, 47.9) of image b'),
    'table: fixations on no image': Fault(
        own, replaced('b,8,', 'z.png,8,'), 'fixations of z, but no image', 'b', 2),
    'table: image without fixations': Fault(own, replaced('b,8,', 'c,8,'), 'image b has no fixations'),
    'table: shares in place of pixels': Fault(own, at(CSV, write_shares), 'shares of the image', NOTHING),
    'table: a line too long': Fault(own, replaced('63.9', '63,9,1'), NO_TABLE, NOTHING),
    'table: not UTF-8': Fault(own, at(CSV, write_latin), NO_TABLE, NOTHING),
    'image too large to be one': Fault(own, at('images/b.png', bomb), 'b.png: not a readable image'),
}
BROKEN = SALICON | OTHERS | TABLES

def opened(root, problems=None): return check_images(read_fixations(root, problems), problems)

@pytest.mark.parametrize('kind', BROKEN)
def test_broken_input_strict(kind, tmp_path):
    fault = BROKEN[kind]
    root = fault.layout(tmp_path)
    fault.damage(root)
    with pytest.raises(DataError) as e: opened(root)
    said = str(e.value)
    assert fault.words in said and str(tmp_path) in said and said.endswith('.') and '\n' not in said

@pytest.mark.parametrize('kind', BROKEN)
def test_broken_input_lenient(kind, tmp_path):
    fault = BROKEN[kind]
    root, problems = fault.layout(tmp_path), Problems(strict=False)
    if fault.out == NOTHING:
        fault.damage(root)
        with pytest.raises(DataError): opened(root, problems)
        return
    whole = opened(root).ids
    fault.damage(root)
    assert opened(root, problems).ids == [i for i in whole if i != fault.out]
    assert fault.words in problems[0][1] and len(problems) == fault.sentences

def test_lenient_collects_all_that_is_wrong(tmp_path):
    root, problems = salicon(tmp_path), Problems(strict=False)
    cut(root/IMAGE_B)
    (root/'fixations/train/a.mat').unlink()
    grey(root/'maps/train/z.png', np.ones(SIZE, np.uint8))
    assert opened(root, problems).ids == ['c'] and [p.image for p in problems] == ['z', 'a', 'b']

def test_lenient_keeps_what_is_whole(tmp_path):
    assert not Problems(strict=False) and len(opened(salicon(tmp_path), Problems(strict=False))) == 3

def test_pysaliency_fixations_of_other_stimuli(tmp_path):
    stimuli = SimpleNamespace(stimuli=[np.zeros((*SIZE, 3))] * 2, sizes=[SIZE] * 2)
    words = r'no points of their images, such as x = 64, y = 3 of image 0001'
    with pytest.raises(DataError, match='on stimulus 2, but there are 2'):
        read_pysaliency(stimuli, looks(n=[0, 1, 2]), folder=tmp_path)
    with pytest.raises(DataError, match='does not hold pysaliency'):
        read_pysaliency(stimuli, SimpleNamespace(x=[1]), folder=tmp_path)
    with pytest.raises(DataError, match=words):
        read_pysaliency(stimuli, looks(x=[1, 2, 64]), folder=tmp_path)

def test_options_that_make_no_sense(tmp_path):
    root = salicon(tmp_path)
    words = "no option 'view'; it has split, sigma"
    with pytest.raises(ParameterError, match=words): read_fixations(root, view='eye')
    with pytest.raises(ParameterError, match='view'): read_osie(osie(tmp_path/'osie'), view='nose')
    found = read_fixations(root)
    with pytest.raises(ParameterError, match='give px_per_degree'): found.blurred(degrees=1)
    with pytest.raises(ParameterError, match='either'): found.blurred()
    with pytest.raises(ParameterError, match='positive'): found.blurred(sigma=0)
    assert found.blurred(degrees=2, px_per_degree=20).sigma == 40
    assert read_osie(tmp_path/'osie').blurred(degrees=.5).sigma == 12

# ---------------------------------------------------------------- what must not change

quick = settings(max_examples=60, deadline=None, database=None, derandomize=True)
places = st.lists(st.tuples(st.integers(0, W - 1), st.integers(0, H - 1)), min_size=1, max_size=30)
shares = st.tuples(st.floats(.01, .99), st.floats(.01, .99)) # where in its pixel a fixation is
METRICS = dict(nss=nss, auc_judd=auc_judd, cc=cc, kld=kld, sim=sim)
GRID = 24, 32

def scores(saliency, item):
    "Every metric of a saliency map (h, w) on an item."
    to_points, to_density = item['fixations'][None], item['density'][None]
    targets = dict(nss=to_points, auc_judd=to_points, cc=to_density, kld=to_density, sim=to_density)
    return {name: metric(saliency[None], targets[name]) for name, metric in METRICS.items()}

def alike(one, other, tolerance):
    for name in METRICS: assert torch.allclose(one[name], other[name], atol=tolerance), name

def drawn(folder, rgb, x, y, official=None, sigma=4.):
    "The item of an image with these fixations, and an official density if there is one."
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(rgb)).save(folder/'i.png')
    if official is not None: Image.fromarray(np.ascontiguousarray(official)).save(folder/'m.png')
    image = dict(path=str(folder/'i.png'), height=rgb.shape[0], width=rgb.shape[1], split='')
    image['map_path'] = None if official is None else str(folder/'m.png')
    unknown = dict(observer='', group='', order=-1, t=np.nan, duration=np.nan)
    f = pd.DataFrame(dict(image='i', x=np.asarray(x, float), y=np.asarray(y, float), **unknown))
    return SaliencyDataset(FixationSet('drawn', pd.DataFrame([image], index=['i']), f, sigma), GRID)[0]

def picture_and_density(seed, with_official):
    rgb = rng(seed, 'rgb').integers(0, 255, (H, W, 3), np.uint8)
    return rgb, rng(seed, 'map').integers(1, 255, SIZE, np.uint8) if with_official else None

def saliency_of(seed): return torch.from_numpy(rng(seed, 'saliency').random(GRID))

@given(places, shares, st.booleans(), st.integers(0, 9), st.booleans())
@quick
def test_flipping_image_and_fixations_together(tmp_path_factory, xy, share, upside_down, seed, with_official):
    x, y = np.array(xy, float).T + np.array(share)[:, None]
    axis, folder = 1 - upside_down, tmp_path_factory.getbasetemp()/'flip'
    rgb, official = picture_and_density(seed, with_official)
    one = drawn(folder, rgb, x, y, official)
    if official is not None: official = np.flip(official, axis)
    flipped = (x, H - y) if upside_down else (W - x, y)
    other = drawn(folder, np.flip(rgb, axis), *flipped, official)
    turned = {name: one[name].flip(axis - 2) for name in ('image', 'fixations', 'density')}
    for name in ('image', 'fixations'): assert torch.equal(turned[name], other[name])
    assert torch.allclose(turned['density'], other['density'], atol=1e-7)
    saliency = saliency_of(seed)
    alike(scores(saliency, one), scores(saliency.flip(axis - 2), other), 1e-5)

@given(places, shares, st.integers(2, 4), st.integers(0, 9), st.booleans())
@quick
def test_scaling_image_and_fixations_together(tmp_path_factory, xy, share, k, seed, with_official):
    x, y = np.array(xy, float).T + np.array(share)[:, None]
    folder = tmp_path_factory.getbasetemp()/'scale'
    def larger(pixels): return None if pixels is None else pixels.repeat(k, 0).repeat(k, 1)
    rgb, official = picture_and_density(seed, with_official)
    one = drawn(folder, rgb, x, y, official)
    other = drawn(folder, larger(rgb), k * x, k * y, larger(official), 4. * k)
    assert torch.equal(one['fixations'], other['fixations'])
    assert torch.allclose(one['density'], other['density'], atol=1e-6)
    half_a_level = 1.01 / 255 / .224 # may be rounded up or down
    assert (one['image'] - other['image']).abs().max() <= half_a_level
    saliency = saliency_of(seed)
    alike(scores(saliency, one), scores(saliency, other), 1e-4)

@given(places, shares, st.tuples(st.integers(1, 70), st.integers(1, 90)))
@quick
def test_fixation_map_loses_nothing_on_any_grid(xy, share, size):
    x, y = np.array(xy, float).T + np.array(share)[:, None]
    h, w = size
    by_hand = np.zeros(size)
    for px, py in zip(x, y): by_hand[min(int(py * h / H), h - 1), min(int(px * w / W), w - 1)] += 1
    made = fixation_map(x, y, SIZE, size)
    assert (made == by_hand).all() and abs(density(made, 2.).sum() - 1) < 1e-5

def apart(one, other): return abs(one[0] - other[0]) + abs(one[1] - other[1]) > 60

def far_apart(planted):
    "Neighbours closer than 60 px are one fixation: only places that are farther from the one before them."
    far = planted[:1]
    for place in planted[1:]:
        if apart(place, far[-1]): far.append(place)
    return far

PLANTED = st.tuples(st.integers(50, 700), st.integers(50, 500), st.integers(30, 90)) # x, y, number of samples

@given(st.lists(PLANTED, min_size=1, max_size=6), st.integers(0, 99))
@quick
def test_planted_fixations_are_found(planted, seed):
    far = far_apart(planted)
    noise = [np.clip(rng(seed, k).normal(0, 1.5, (n, 2)), -4, 4) for k, (_, _, n) in enumerate(far)]
    places = np.repeat([p[:2] for p in far], [p[2] for p in far], axis=0)
    found = found_fixations(places + np.concatenate(noise), 240, 35)
    assert len(found) == len(far) and np.allclose(found[['x', 'y']], [p[:2] for p in far], atol=4)
    assert np.allclose(found.duration, [p[2] / .24 for p in far], atol=1e-6)

def test_no_fixation_without_gaze():
    for gaze_points in (np.full((300, 2), -1), np.zeros((0, 2))):
        assert not len(found_fixations(gaze_points, 240, 35))
    assert not len(found_fixations(np.arange(600).reshape(300, 2) * 9., 240, 35)) # never at rest

# ---------------------------------------------------------------- densities: cached, never stale; in batches

def densities(found, **options):
    dataset = SaliencyDataset(found, (24, 32), **options)
    return [item['density'] for item in dataset.__getitems__(range(len(found)))]

def all_equal(one, other): return all(map(torch.equal, one, other))

@pytest.mark.parametrize('layout', [salicon, salicon_json]) # official and blurred
def test_cached_densities_are_the_same(layout, tmp_path):
    found, cache = read_fixations(layout(tmp_path)), tmp_path/'cache'
    plain = densities(found)
    for _ in range(2): assert all_equal(densities(found, cache=cache), plain)
    files = sorted(cache.iterdir())
    assert len(files) == 3 and not [f for f in files if f.name.startswith('.')]
    stamps = [f.stat().st_mtime_ns for f in files]
    densities(found, cache=cache)
    assert [f.stat().st_mtime_ns for f in files] == stamps # read, not made again

def test_cache_is_never_stale(tmp_path):
    root, cache = salicon_json(tmp_path), tmp_path/'cache'
    found = read_fixations(root)
    densities(found, cache=cache)
    moved = found.fixations.assign(x=found.fixations.x * .9)
    for other in (found.blurred(sigma=7), FixationSet('moved', found.images, moved, found.sigma)):
        assert all_equal(densities(other, cache=cache), densities(other))
    assert SaliencyDataset(found, (12, 16), cache)[0]['density'].shape == (12, 16)

def test_cache_of_official_densities_is_never_stale(tmp_path):
    official, cache = read_fixations(salicon(tmp_path/'s')), tmp_path/'cache'
    densities(official, cache=cache)
    another = np.eye(H, W).astype(np.uint8) # another content under the same name
    grey(Path(official.images.map_path['b']), another)
    assert all_equal(densities(official, cache=cache), densities(official))

def another_shape(path): np.save(path, np.zeros((2, 2)))

@pytest.mark.parametrize('damage', [cut, text, empty, another_shape])
def test_damaged_cache_is_made_again(damage, tmp_path):
    found, cache = read_fixations(salicon_json(tmp_path)), tmp_path/'cache'
    plain = densities(found, cache=cache)
    for f in list(cache.iterdir()): damage(f)
    for _ in range(2): assert all_equal(densities(found, cache=cache), plain)

def test_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    found = read_fixations(salicon_json(tmp_path))
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(np, 'save', full)
    with pytest.raises(DataError, match='disk is full'): densities(found, cache=tmp_path/'cache')
    assert not list((tmp_path/'cache').iterdir())

def test_batches_are_the_items_in_order(tmp_path):
    dataset = SaliencyDataset(read_fixations(salicon(tmp_path)), (24, 32))
    b = next(iter(DataLoader(dataset, 3)))
    assert b['id'] == IDS and all(torch.equal(b['image'][k], dataset[k]['image']) for k in range(3))
    cut(tmp_path/IMAGE_B)
    with pytest.raises(DataError, match='b.jpg'): dataset.__getitems__([0, 1, 2])

def test_sixteen_bit_density_keeps_its_bits(tmp_path):
    root = salicon(tmp_path)
    wide = np.linspace(0, 60000, H * W).reshape(SIZE).astype(np.uint16)
    for i in IDS: grey(root/f'maps/train/{i}.png', wide)
    made = SaliencyDataset(check_images(read_salicon(root)), SIZE)[0]['density']
    assert np.allclose(made, wide / wide.sum(dtype=float), atol=1e-9)

def test_fingerprint_sees_every_change(tmp_path):
    found = read_fixations(salicon_json(tmp_path))
    f, images = found.fixations, found.images
    twice = pd.concat([f, f.iloc[[0, 0]]]) # the same row twice more
    others = [
        found.blurred(sigma=1),
        FixationSet('t', images, twice, found.sigma),
        FixationSet('h', images.assign(height=H + 1), f, found.sigma),
        FixationSet('x', images, f.assign(x=f.x + .1), found.sigma),
        found.subset(['a', 'b']),
    ]
    assert len({f.fingerprint() for f in [found, *others]}) == 6
    assert read_fixations(tmp_path).fingerprint() == found.fingerprint()

def test_every_layout_is_documented():
    assert len(LAYOUTS) == 10 and all('(' in name or name.startswith('images') for name in LAYOUTS)

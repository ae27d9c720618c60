"Fixations: every layout from a real or a generated fixture, what broken input does in strict and in lenient mode, and what flipping or scaling must not change."
import json, shutil, struct, zlib
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
    Image.fromarray(pixels).save(path, **({'quality': 95} if path.suffix == '.jpg' else {}))

def points(k, size=SIZE): # 1-based (x, y), different for each k; the last one is the last pixel
    g = rng(k, 'points')
    return np.stack([np.append(g.integers(1, size[1] + 1, 5), size[1]), np.append(g.integers(1, size[0] + 1, 5), size[0])], 1)

def gaze(observers, **more):
    "SALICON's struct array: `fixations`, raw samples in `location` and `timestamp`."
    names = ['location', 'timestamp', 'fixations', *more]
    array = np.zeros(len(observers), [(n, object) for n in names])
    for k, xy in enumerate(observers): array[k] = (np.zeros((9, 2)), np.arange(9.), xy, *(v[k] for v in more.values()))
    return array

def mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, long_field_names=True)

def salicon(root, dtype=np.uint16, maps='.png', **more): # 2015: unsigned integers; 2017: doubles
    for k, i in enumerate(IDS):
        picture(root/f'images/train/{i}.jpg')
        mat(root/f'fixations/train/{i}.mat', gaze=gaze([points(2 * k).astype(dtype), points(2 * k + 1)[:1].astype(dtype), np.zeros((0, 2))], **more), resolution=np.array(SIZE), image=i)
        if maps: grey(root/f'maps/train/{i}{maps}', (density(fixation_map(*(points(2 * k) - .5).T, SIZE, SIZE), 3) * 9999).astype(np.uint8))
    return root

def salicon_2017(root): return salicon(root, float, '.jpg')

def authors(root):
    for k, i in enumerate(IDS):
        picture(root/f'images/train/{i}.jpg')
        x, y = points(k).T - 1
        mat(root/f'fixations/train/{i}.mat', fixationPts=csc_matrix((np.ones(len(x)), (y, x)), SIZE) if k == 1 else (fixation_map(x, y, SIZE, SIZE) > 0).astype(np.uint8))
    return root

def salicon_json(root):
    for i in IDS: picture(root/f'images/train2014/{i}.jpg')
    images = [dict(id=k, file_name=f'{i}.jpg', height=H, width=W) for k, i in enumerate(IDS)]
    annotations = [dict(image_id=k, worker_id=w, id=9 * k + w, fixations=points(k)[:, ::-1].tolist()) for k in range(3) for w in (7, 8)]
    (root/'fixations_train2014.json').write_text(json.dumps(dict(images=images, annotations=annotations)))
    return root

def osie(root):
    subjects = lambda k: np.array([SimpleNamespace(fix_x=p[:, 0], fix_y=p[:, 1], fix_duration=np.arange(100, 100 + len(p))).__dict__ for p in (points(2 * k), points(2 * k + 1))], object)
    for i in ('1001', '1002', '1003'): picture(root/f'stimuli/{i}.jpg', (600, 800))
    mat(root/'eye/fixations.mat', fixations=np.array([dict(img=f'{1001 + k}.jpg', subjects=subjects(k)) for k in range(3)], object))
    for k in range(3): mat(root/f'mouse_lab/{1001 + k}.mat', fixations=dict(subj=np.repeat([3, 5], 3), coord=points(k)[:, ::-1], order=np.tile([1, 2, 3], 2)))
    return root

LONG = 'istatic_' + 60 * 'x' # MATLAB cuts names of variables after 63 letters
def mit1003(root):
    for k, i in enumerate((LONG, 'i2', 'i3')):
        picture(root/f'ALLSTIMULI/{i}.jpeg', (300, 400))
        for o in ('ajs', 'CNG'): mat(root/f'DATA/{o}/{i}.mat', **{i[:63]: dict(imgName=f'{i}.jpeg', DATA=dict(eyeData=samples([(200, 150), (60 + k, 70), (-1, -1), (300, 200), (399, 500)])))})
        grey(root/f'ALLFIXATIONMAPS/{i}_fixPts.jpg', dots([(60 + k, 70), (300, 200)], (300, 400)))
        grey(root/f'ALLFIXATIONMAPS/{i}_fixMap.jpg', np.full((300, 400), 9 + k, np.uint8))
    return root

def samples(places, each=60): return np.concatenate([np.full((each, 3), (*p, 1.)) + rng(0, *p).normal(0, 1, (each, 3)) * (p[0] > 0) for p in places])

def dots(places, size):
    m = np.zeros(size, np.uint8)
    for x, y in places: m[y, x] = 255
    return m

def cat2000(root):
    for c in ('Action', 'Sketch'):
        picture(root/f'trainSet/Stimuli/{c}/001.jpg'); picture(root/f'trainSet/Stimuli/{c}/Output/001_SaliencyMap.jpg')
        mat(root/f'trainSet/FIXATIONLOCS/{c}/001.mat', fixLocs=dots([(0, 0), (63, 47), (5, 9)], SIZE) > 0)
        grey(root/f'trainSet/FIXATIONMAPS/{c}/001.jpg', np.full(SIZE, 50, np.uint8))
    return root

def codecharts(root):
    for k, i in enumerate(IDS):
        picture(root/f'raw_img/{i}.jpg')
        for n, t in enumerate((500, 3000, 5000)):
            grey(root/f'fix_maps/{t}/{i}.png', dots([(k, n), (40 + n, 30)], SIZE)); grey(root/f'heatmaps/{t}/{i}.png', np.full(SIZE, 1 + n, np.uint8))
    (root/'splits.json').write_text('{}')
    return root

TABLE = 'image,observer,group,x,y,t,duration,device\na.png,007,control,10.25,20.5,300,120,eye\na.png,007,control,1,2,0,130,eye\nb,8,autism,63.9,47.9,0,,eye\nc.png,8,autism,5,6,,90,eye\n'
def own(root):
    for i in IDS: picture(root/f'images/{i}.png')
    (root/'fixations.csv').write_text(TABLE)
    return root

# ---------------------------------------------------------------- each is read, through the one door

ALL = dict(salicon_2015=salicon, salicon_2017=salicon_2017, authors=authors, salicon_json=salicon_json, osie=osie, mit1003=mit1003, cat2000=cat2000, codecharts=codecharts, own=own)

@pytest.mark.parametrize('layout', ALL)
def test_read_by_layout(layout, tmp_path):
    found = read_fixations(ALL[layout](tmp_path))
    assert isinstance(check_images(found), FixationSet) and len(found) == (2 if layout == 'cat2000' else 3)
    assert list(found.fixations.columns[:8]) == FIXATION_COLUMNS and found.images.columns[:5].tolist() == ['path', 'height', 'width', 'map_path', 'split']
    assert set(found.fixations.image) == set(found.ids) and found.sigma > 0
    dataset = SaliencyDataset(found, (24, 32))
    for item in dataset.__getitems__(range(len(found))):
        assert item['fixations'].sum() == (found.fixations.image == item['id']).sum() and abs(item['density'].sum() - 1) < 1e-5

def xy(found, image, **where):
    f = found.fixations[(found.fixations.image == image)]
    for k, v in where.items(): f = f[f[k] == v]
    return f[['x', 'y']].to_numpy()

@pytest.mark.parametrize('layout', [salicon, salicon_2017])
def test_salicon(layout, tmp_path):
    found = read_salicon(layout(tmp_path))
    assert (xy(found, 'b', observer='0') == points(2) - .5).all() and (xy(found, 'b', observer='1') == points(3)[:1] - .5).all()
    assert found.fixations.order.tolist() == [0, 1, 2, 3, 4, 5, 0] * 3 and found.fixations.t.isna().all() and found.images.map_path.notna().all()
    made, official = SaliencyDataset(found, SIZE)[0]['density'], load_map(found.images.map_path.iloc[0])
    assert np.allclose(made, official / official.sum(), atol=1e-7)

def test_salicon_with_group_and_durations(tmp_path):
    lengths = [6, 1, 0]
    root = salicon(tmp_path, group=['control', 'autism', 'autism'], durations=[np.full(n, 200.) for n in lengths])
    for i in IDS: # timestamps of fixations, as in generated worlds
        g = gaze([points(1), points(2)[:1]], durations=[np.full(6, 200.), np.full(1, 90.)], group=['control', 'autism'])
        for k, t in enumerate((np.arange(6) * 300., np.zeros(1))): g[k]['timestamp'] = t
        mat(root/f'fixations/train/{i}.mat', gaze=g, resolution=np.array(SIZE))
    f = read_salicon(root).fixations
    assert not (read_salicon(salicon(tmp_path/'no_groups', group=['', '', ''])).fixations.group != '').any() # MATLAB's empty string is an empty array
    assert f[f.image == 'a'].groupby('group').duration.sum().to_dict() == {'autism': 90, 'control': 1200} and f.t.max() == 1500

def test_authors_maps_keep_every_pixel(tmp_path):
    found = read_fixations(authors(tmp_path))
    for k, i in enumerate(IDS): assert {*map(tuple, xy(found, i))} == {*map(tuple, points(k) - .5)}
    assert (found.fixations.observer == '').all() and (found.fixations.order == -1).all()

def test_salicon_json_is_row_column(tmp_path):
    found = read_fixations(salicon_json(tmp_path))
    assert (xy(found, 'c', observer='8') == points(2) - .5).all() and found.fixations.observer.nunique() == 2

def test_osie_views(tmp_path):
    osie(tmp_path)
    eye, mouse = read_fixations(tmp_path), read_fixations(tmp_path, view='mouse_lab')
    assert (xy(eye, '1002', observer='1') == points(3) - .5).all() and eye.fixations.t.iloc[2] == 201 and eye.px_per_degree == 24
    assert (xy(mouse, '1003') == points(2) - .5).all() and mouse.fixations.order.tolist() == [0, 1, 2] * 6 and set(mouse.fixations.observer) == {'3', '5'}

def test_mit1003_samples_and_pictures(tmp_path):
    found = read_mit1003(mit1003(tmp_path/'mit'))
    assert np.allclose(xy(found, 'i2', observer='ajs'), [(60, 69), (299, 199)], atol=.6) # from 1: pixel k covers [k - 1, k)
    assert found.left_out == 6 and set(found.fixations.observer) == {'ajs', 'CNG'} and found.fixations.order.tolist() == [1, 2] * 6
    assert read_mit1003(tmp_path/'mit', first=True).fixations.order.tolist() == [0, 1, 2] * 6
    shutil.rmtree(tmp_path/'mit/DATA')
    pictures = read_mit1003(tmp_path/'mit')
    assert (xy(pictures, 'i2') == [(61.5, 70.5), (300.5, 200.5)]).all() and len(pictures.fixations) == 6

def test_cat2000(tmp_path):
    found = read_fixations(cat2000(tmp_path))
    assert found.ids == ['Action_001', 'Sketch_001'] and found.images.category.tolist() == ['Action', 'Sketch']
    assert (xy(found, 'Sketch_001') == [(.5, .5), (5.5, 9.5), (63.5, 47.5)]).all() and found.images.map_path.notna().all()

def test_codecharts_viewing_time(tmp_path):
    everything, one = read_fixations(codecharts(tmp_path)), read_codecharts(tmp_path, time=3000)
    assert everything.fixations.groupby('t').size().to_dict() == {500: 6, 3000: 6, 5000: 6} and everything.images.map_path.isna().all()
    assert (xy(one, 'b') == [(1.5, 1.5), (41.5, 30.5)]).all() and '/3000/' in one.images.map_path.iloc[0]
    with pytest.raises(ParameterError, match='500, 3000, 5000'): read_codecharts(tmp_path, time=700)

def test_own_table(tmp_path):
    found = read_fixations(own(tmp_path), sigma=2)
    assert found.fixations.observer.tolist() == ['007', '007', '8', '8'] and found.fixations.group.tolist() == ['control'] * 2 + ['autism'] * 2
    assert found.fixations.device.eq('eye').all() and np.isnan(found.fixations.duration[2]) and found.sigma == 2 # further columns are kept
    assert (xy(read_csv(tmp_path/'fixations.csv', origin=.5), 'c') == (4.5, 5.5)).all() # pixels counted from 1
    (tmp_path/'fixations.csv').write_text('image,x,y,t\na,1,1,9\na,2,2,3\nb,5,5,0\nc,1,1,0\n')
    assert read_fixations(tmp_path).fixations.order.tolist() == [1, 0, 0, 0] and read_fixations(tmp_path).sigma == pytest.approx(.03 * W)

def looks(**changed): return SimpleNamespace(**dict(x=[3., 5, 7.5], y=[1., 2, 3], t=[0, .3, 0], n=[0, 0, 1], subjects=[4, 4, 5], lengths=[0, 1, 0]) | changed)

def test_objects_like_pysaliency(tmp_path):
    pixels = [rng(k, 'p').integers(0, 255, (*SIZE, 3)) for k in range(2)]
    found = read_pysaliency(SimpleNamespace(stimuli=pixels, sizes=[SIZE] * 2), looks(duration=[.2, .1, .3]), folder=tmp_path)
    assert found.ids == ['0000', '0001'] and found.fixations.t.tolist() == [0, 300, 0] and found.fixations.duration.tolist() == [200, 100, 300]
    assert found.fixations.order.tolist() == [0, 1, 0] and (xy(found, '0001') == (7.5, 3)).all() and check_images(found)
    with pytest.raises(ParameterError, match='give a folder'): read_pysaliency(SimpleNamespace(stimuli=pixels, sizes=[SIZE] * 2), looks())
    assert read_pysaliency(SimpleNamespace(stimuli=pixels, sizes=[SIZE] * 2), looks(), unit=None, folder=tmp_path).fixations.t.isna().all()

def test_pysaliency_itself(tmp_path):
    try: import pysaliency
    except ImportError as e: pytest.skip(f'pysaliency does not import here ({e}); it needs setuptools < 81, see TOOLING')
    picture(tmp_path/'x/001.png'); picture(tmp_path/'y/001.png')
    stimuli = pysaliency.FileStimuli([str(tmp_path/'x/001.png'), str(tmp_path/'y/001.png')])
    trains = pysaliency.FixationTrains.from_fixation_trains([[1, 2.5], [3]], [[1, 2], [4]], [[0, .3], [0]], [0, 1], [0, 1], scanpath_fixation_attributes={'durations': [[.1, .2], [.3]]},
                                                            scanpath_attribute_mapping={'durations': 'duration'})
    found = check_images(read_pysaliency(stimuli, trains))
    assert found.ids == ['x_001', 'y_001'] and (xy(found, 'x_001') == [(1, 1), (2.5, 2)]).all() and found.images[['height', 'width']].eq(SIZE).all(axis=None)
    assert found.fixations[['order', 't', 'duration']].to_numpy().round(6).tolist() == [[0, 0, 100], [1, 300, 200], [0, 0, 300]]
    memory = pysaliency.Stimuli([np.zeros((*SIZE, 3), np.uint8)] * 2)
    assert len(check_images(read_pysaliency(memory, trains, folder=tmp_path))) == 2

# ---------------------------------------------------------------- real files

real = lambda name: pytest.mark.skipif(not (REAL/name).is_dir(), reason=f'{REAL/name} is not here')

@real('salicon_examples')
def test_real_salicon_json():
    found = check_images(read_fixations(REAL/'salicon_examples'))
    raw = json.loads((REAL/'salicon_examples/fixations_train2014examples.json').read_text())
    assert len(found) == 10 and len(found.fixations) == sum(len(a['fixations']) for a in raw['annotations']) and found.fixations.groupby(['image', 'observer']).ngroups == 610
    first = raw['annotations'][0]
    f = found.fixations[(found.fixations.image == 'COCO_train2014_000000123855') & (found.fixations.observer == str(first['worker_id']))]
    assert (f[['y', 'x']].to_numpy() + .5).tolist() == first['fixations']

@real('osie')
def test_real_osie_as_in_its_files():
    raw = loadmat(REAL/'osie/eye/fixations.mat')['fixations'] # another way through the same file
    eye = read_fixations(REAL/'osie')
    assert len(eye) == 700 and len(eye.fixations) == 98_321 and eye.left_out == 0
    for k in range(0, 700, 70):
        one = raw[k, 0][0, 0]
        name, x = Path(one['img'][0]).stem, [v for s in one['subjects'].ravel() for v in s[0, 0]['fix_x'].ravel()]
        y, d = ([v for s in one['subjects'].ravel() for v in s[0, 0][field].ravel()] for field in ('fix_y', 'fix_duration'))
        f = eye.fixations[eye.fixations.image == name]
        assert np.allclose(f.x + .5, x) and np.allclose(f.y + .5, y) and np.allclose(f.duration, d)

@real('osie')
def test_real_osie_enrichment_of_text_and_touch():
    "The published yardstick (../shared/data/README.md), computed here pixel by pixel for two attributes."
    eye, inside, expected = read_osie(REAL/'osie'), np.zeros(2), np.zeros(2)
    for i, f in eye.fixations.groupby('image'):
        masks = loadmat(REAL/f'osie/labels/{i}.mat')['data'][[0, 6]] > 0 # text, touch
        hit = fixation_map(f.x, f.y, (600, 800), (600, 800))
        for k, m in enumerate(masks):
            if m.any(): inside[k] += hit[m].sum(); expected[k] += m.mean() * len(f)
    assert (inside / expected) == pytest.approx([8.4, 2.2], rel=.03)

# ---------------------------------------------------------------- broken input

def cut(path, share=.5): path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
def text(path): path.write_text('<html>404</html>')
def matlab73(path):
    with h5py.File(path, 'w', userblock_size=512) as f: f['gaze'] = np.zeros(3)
    with open(path, 'r+b') as f: f.write(b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\x00\x02IM')
def bomb(path): # the header of a PNG of 40,000 x 40,000 px
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 40000, 40000, 8, 2, 0, 0, 0)) + chunk(b'IEND', b''))
def edit(path, change): content = json.loads(path.read_text()); change(content); path.write_text(json.dumps(content))
def lines(root, old, new): (root/'fixations.csv').write_text(TABLE.replace(old, new))
gaze_b, image_b, map_b = 'fixations/train/b.mat', 'images/train/b.jpg', 'maps/train/b.png'
def rewrite(r, xy=None, **variables): mat(r/gaze_b, **(dict(gaze=gaze([xy if xy is not None else points(1)]), resolution=np.array(SIZE)) | variables))

NOTHING = 'nothing can be read' # a fault of the whole set: lenient mode raises as well
BROKEN = { # what is wrong: layout, how it is broken, what the sentence says, image that lenient mode leaves out ('': none), number of sentences where not one
    'fixation file missing': (salicon, lambda r: (r/gaze_b).unlink(), 'b.mat: no such file', 'b'),
    'image file missing': (salicon, lambda r: ((r/image_b).unlink(), (r/map_b).unlink()), 'fixations of b, but no image', 'b'),
    'density missing for one image': (salicon, lambda r: (r/map_b).unlink(), 'image b has no official density', 'b'),
    'density without image': (salicon, lambda r: grey(r/'maps/train/z.png', np.ones(SIZE, np.uint8)), 'density of z, but no image', ''),
    'two images of one name': (salicon, lambda r: picture(r/'images/train/b.png'), 'b.jpg and b.png are two images', 'b'),
    'MATLAB file truncated': (salicon, lambda r: cut(r/gaze_b), 'b.mat: not a readable MATLAB file', 'b'),
    'MATLAB file empty': (salicon, lambda r: (r/gaze_b).write_bytes(b''), 'b.mat: not a readable MATLAB file', 'b'),
    'MATLAB file is a web page': (salicon, lambda r: text(r/gaze_b), 'b.mat: not a readable MATLAB file', 'b'),
    'MATLAB 7.3 of something else': (salicon, lambda r: matlab73(r/gaze_b), "b.mat: holds no variable 'resolution'", 'b'),
    'no gaze': (salicon, lambda r: mat(r/gaze_b, resolution=np.array(SIZE)), "b.mat: holds no variable 'gaze'", 'b'),
    'no resolution': (salicon, lambda r: mat(r/gaze_b, gaze=gaze([points(0)])), "b.mat: holds no variable 'resolution'", 'b'),
    'resolution of three numbers': (salicon, lambda r: rewrite(r, resolution=[H, W, 3]), "b.mat: does not hold SALICON's gaze", 'b'),
    'gaze is a number': (salicon, lambda r: rewrite(r, gaze=3.), "b.mat: does not hold SALICON's gaze", 'b'),
    'fixations of three columns': (salicon, lambda r: rewrite(r, np.ones((4, 3))), 'shape (4, 3) in place of n x 2', 'b'),
    'fixations are words': (salicon, lambda r: rewrite(r, gaze=gaze(['middle'])), "b.mat: does not hold SALICON's gaze", 'b'),
    'nobody looked': (salicon, lambda r: rewrite(r, np.zeros((0, 2))), 'b.mat: the image has no fixations', 'b'),
    'axes swapped': (salicon, lambda r: rewrite(r, np.array([[20, 60]])), '(19.5, 59.5) of image b is no point', 'b'),
    'pixels counted from 0': (salicon, lambda r: rewrite(r, np.array([[0, 5]])), '(-0.5, 4.5) of image b is no point', 'b'),
    'fixation is no number': (salicon, lambda r: rewrite(r, np.array([[np.nan, 5]])), '(nan, 4.5) of image b is no point', 'b'),
    'infinite fixation': (salicon, lambda r: rewrite(r, np.array([[np.inf, 5]])), '(inf, 4.5) of image b is no point', 'b'),
    'more durations than fixations': (salicon, lambda r: rewrite(r, gaze=gaze([points(0)], durations=[np.ones(9)])), "b.mat: does not hold SALICON's gaze", 'b'),
    'authors: no map': (authors, lambda r: mat(r/gaze_b, fixationPts=np.ones(7)), "b.mat: does not hold a map 'fixationPts'", 'b'),
    'authors: empty map': (authors, lambda r: mat(r/gaze_b, fixationPts=np.zeros(SIZE)), 'image b has no fixations', 'b'),
    'folder missing': (lambda r: r/'nowhere', lambda r: None, 'nowhere: no such folder', NOTHING),
    'unknown layout': (lambda r: r, lambda r: (r/'photos').mkdir(), 'no known layout', NOTHING),
    'no images at all': (salicon, lambda r: [p.unlink() for p in (r/'images/train').iterdir()], 'train: no images', NOTHING),
    'every image broken': (salicon, lambda r: [p.write_bytes(b'') for p in (r/'fixations/train').iterdir()], 'a.mat: not a readable MATLAB file', NOTHING),
    'image truncated': (salicon, lambda r: cut(r/image_b), 'b.jpg: not a readable image', 'b'),
    'image empty': (salicon, lambda r: (r/image_b).write_bytes(b''), 'b.jpg: not a readable image', 'b'),
    'image is a web page': (salicon, lambda r: text(r/image_b), 'b.jpg: not a readable image', 'b'),
    'image of another size': (salicon, lambda r: picture(r/image_b, (50, 64)), 'b.jpg: the image is 50 x 64 px but its fixations', 'b'),
    'density unreadable': (salicon, lambda r: cut(r/map_b, .1), 'b.png: not a readable image', 'b'),
    'density zero everywhere': (salicon, lambda r: grey(r/map_b, np.zeros(SIZE, np.uint8)), 'b.png: the density is zero everywhere', 'b'),
    'density of another shape': (salicon, lambda r: grey(r/map_b, np.ones((64, 200), np.uint8)), 'b.png: the density is 64 x 200 px', 'b'),
    'JSON truncated': (salicon_json, lambda r: cut(r/'fixations_train2014.json'), 'fixations_train2014.json: not valid JSON', NOTHING),
    'JSON of something else': (salicon_json, lambda r: edit(r/'fixations_train2014.json', lambda c: c.pop('annotations')), "does not hold SALICON's images and annotations", NOTHING),
    'two JSON files of one split': (salicon_json, lambda r: (r/'fixations_train_old.json').write_text('{}'), '2 files fixations_train*.json', NOTHING),
    'JSON: image file missing': (salicon_json, lambda r: (r/'images/train2014/b.jpg').unlink(), 'lists image b, which is not in', 'b'),
    'JSON: nobody looked': (salicon_json, lambda r: edit(r/'fixations_train2014.json', lambda c: c['annotations'].__delitem__(slice(2, 4))), 'image b has no fixations', 'b'),
    'JSON: (x, y) in place of (row, column)': (salicon_json, lambda r: edit(r/'fixations_train2014.json', lambda c: [a.update(fixations=[[60, 20]]) for a in c['annotations'][2:4]]), '(19.5, 59.5) of image b', 'b'),
    'JSON: positions of three numbers': (salicon_json, lambda r: edit(r/'fixations_train2014.json', lambda c: c['annotations'][2].update(fixations=[[6, 2, 1]])), 'positions of image b', 'b'),
    'OSIE: image not in the file': (osie, lambda r: picture(r/'stimuli/1009.jpg', (600, 800)), 'no fixations for image 1009', '1009'),
    'OSIE: broken file': (osie, lambda r: text(r/'eye/fixations.mat'), 'fixations.mat: not a readable MATLAB file', NOTHING),
    'MIT1003: one observer missing': (mit1003, lambda r: (r/'DATA/ajs/i2.mat').unlink(), 'ajs/i2.mat: no such file', 'i2'),
    'MIT1003: no eye data': (mit1003, lambda r: mat(r/'DATA/ajs/i2.mat', i2=dict(DATA=dict(gaze=1))), 'i2.mat: does not hold a struct with DATA.eyeData', 'i2'),
    'CAT2000: locations missing': (cat2000, lambda r: (r/'trainSet/FIXATIONLOCS/Sketch/001.mat').unlink(), 'Sketch/001.mat: no such file', 'Sketch_001'),
    'CAT2000: another variable': (cat2000, lambda r: mat(r/'trainSet/FIXATIONLOCS/Sketch/001.mat', I=np.ones(SIZE)), "001.mat: holds no variable 'fixLocs'", 'Sketch_001'),
    'CodeCharts: one viewing time missing': (codecharts, lambda r: (r/'fix_maps/500/b.png').unlink(), '500/b.png: no such file', 'b'),
    'CodeCharts: positions of another size': (codecharts, lambda r: grey(r/'fix_maps/500/b.png', dots([(1, 1)], (9, 9))), 'b.png: 9 x 9 px but its image has 48 x 64', 'b'),
    'table: no column y': (own, lambda r: lines(r, 'x,y', 'x,z'), "no column 'y' among image, observer", NOTHING),
    'two tables': (own, lambda r: shutil.copy(r/'fixations.csv', r/'more.csv'), '2 tables of fixations', NOTHING),
    'table: empty': (own, lambda r: (r/'fixations.csv').write_text(''), 'fixations.csv: not a readable table', NOTHING),
    'table: a word in place of a number': (own, lambda r: lines(r, '63.9', 'left'), "line 4: x is 'left', which is no number", 'b'),
    'table: a duration that is none': (own, lambda r: lines(r, '47.9,0,,', '47.9,0,short,'), "line 4: duration is 'short'", 'b'),
    'table: coordinate missing': (own, lambda r: lines(r, '63.9', ''), '(nan, 47.9) of image b', 'b'),
    'table: fixations on no image': (own, lambda r: lines(r, 'b,8,', 'z.png,8,'), 'fixations on image z, but no image', 'b', 2),
    'table: image without fixations': (own, lambda r: lines(r, 'b,8,', 'c,8,'), 'image b has no fixations', 'b'),
    'table: shares in place of pixels': (own, lambda r: (r/'fixations.csv').write_text('image,x,y\na,.5,.5\nb,.2,1\nc,0,.3\n'), 'shares of the image', NOTHING),
    'table: a line too long': (own, lambda r: lines(r, '63.9', '63,9,1'), 'fixations.csv: not a readable table', NOTHING),
    'table: not UTF-8': (own, lambda r: (r/'fixations.csv').write_bytes(TABLE.replace('control', 'Kontrolle f\xfcr').encode('latin-1')), 'fixations.csv: not a readable table', NOTHING),
    'image too large to be one': (own, lambda r: bomb(r/'images/b.png'), 'b.png: not a readable image', 'b'),
}

def opened(root, problems=None): return check_images(read_fixations(root, problems), problems)

@pytest.mark.parametrize('kind', BROKEN)
def test_broken_input_strict(kind, tmp_path):
    layout, damage, words, *_ = BROKEN[kind]
    root = layout(tmp_path); damage(root)
    with pytest.raises(DataError) as e: opened(root)
    assert words in str(e.value) and str(tmp_path) in str(e.value) and str(e.value).endswith('.') and '\n' not in str(e.value)

@pytest.mark.parametrize('kind', BROKEN)
def test_broken_input_lenient(kind, tmp_path):
    layout, damage, words, out, *count = BROKEN[kind]
    root = layout(tmp_path)
    whole = opened(root).ids if out is not NOTHING else []
    damage(root); problems = Problems(strict=False)
    if out is NOTHING:
        with pytest.raises(DataError): opened(root, problems)
        return
    assert opened(root, problems).ids == [i for i in whole if i != out] and words in problems[0][1] and len(problems) == (count or [1])[0]

def test_lenient_collects_all_that_is_wrong(tmp_path):
    root, problems = salicon(tmp_path), Problems(strict=False)
    cut(root/image_b); (root/'fixations/train/a.mat').unlink(); grey(root/'maps/train/z.png', np.ones(SIZE, np.uint8))
    assert opened(root, problems).ids == ['c'] and [p.image for p in problems] == ['z', 'a', 'b']
    assert not Problems(strict=False) and len(opened(salicon(tmp_path/'whole'), Problems(strict=False))) == 3

def test_pysaliency_fixations_of_other_stimuli(tmp_path):
    stimuli = SimpleNamespace(stimuli=[np.zeros((*SIZE, 3))] * 2, sizes=[SIZE] * 2)
    with pytest.raises(DataError, match='on stimulus 2, but there are 2'): read_pysaliency(stimuli, looks(n=[0, 1, 2]), folder=tmp_path)
    with pytest.raises(DataError, match='does not hold pysaliency'): read_pysaliency(stimuli, SimpleNamespace(x=[1]), folder=tmp_path)
    with pytest.raises(DataError, match=r'no points of their images, such as \(64, 3\) of image 0001'): read_pysaliency(stimuli, looks(x=[1, 2, 64]), folder=tmp_path)

def test_options_that_make_no_sense(tmp_path):
    root = salicon(tmp_path)
    with pytest.raises(ParameterError, match="no option 'view'; it has split, sigma"): read_fixations(root, view='eye')
    with pytest.raises(ParameterError, match='view'): read_osie(osie(tmp_path/'osie'), view='nose')
    found = read_fixations(root)
    with pytest.raises(ParameterError, match='give px_per_degree'): found.blurred(degrees=1)
    with pytest.raises(ParameterError, match='either'): found.blurred()
    with pytest.raises(ParameterError, match='positive'): found.blurred(sigma=0)
    assert found.blurred(degrees=2, px_per_degree=20).sigma == 40 and read_osie(tmp_path/'osie').blurred(degrees=.5).sigma == 12

# ---------------------------------------------------------------- what must not change

quick = settings(max_examples=60, deadline=None, database=None, derandomize=True)
places = st.lists(st.tuples(st.integers(0, W - 1), st.integers(0, H - 1)), min_size=1, max_size=30)
shares = st.tuples(st.floats(.01, .99), st.floats(.01, .99)) # where in its pixel a fixation is
metrics = {'nss': lambda s, item: nss(s, item['fixations']), 'auc_judd': lambda s, item: auc_judd(s, item['fixations']), 'cc': lambda s, item: cc(s, item['density']),
           'kld': lambda s, item: kld(s, item['density']), 'sim': lambda s, item: sim(s, item['density'])}

def a_set(folder, rgb, x, y, sigma=4., official=None):
    folder.mkdir(exist_ok=True); Image.fromarray(np.ascontiguousarray(rgb)).save(folder/'i.png')
    if official is not None: Image.fromarray(np.ascontiguousarray(official)).save(folder/'m.png')
    images = pd.DataFrame(dict(path=[str(folder/'i.png')], height=rgb.shape[0], width=rgb.shape[1], map_path=[None if official is None else str(folder/'m.png')], split=''), index=['i'])
    f = pd.DataFrame(dict(image='i', observer='', group='', order=-1, x=np.asarray(x, float), y=np.asarray(y, float), t=np.nan, duration=np.nan))
    return FixationSet('drawn', images, f, sigma)

@given(places, shares, st.booleans(), st.integers(0, 9), st.booleans())
@quick
def test_flipping_image_and_fixations_together(tmp_path_factory, xy, share, upside_down, seed, with_official):
    x, y = np.array(xy, float).T + np.array(share)[:, None]
    rgb, axis, folder = rng(seed, 'rgb').integers(0, 255, (H, W, 3), np.uint8), 1 - upside_down, tmp_path_factory.getbasetemp()/'flip'
    official = rng(seed, 'map').integers(1, 255, SIZE, np.uint8) if with_official else None
    flipped = (x, H - y) if upside_down else (W - x, y)
    one = SaliencyDataset(a_set(folder, rgb, x, y, official=official), (24, 32))[0]
    other = SaliencyDataset(a_set(folder, np.flip(rgb, axis), *flipped, official=None if official is None else np.flip(official, axis)), (24, 32))[0]
    turn = lambda m: m.flip(axis - 2)
    assert torch.equal(turn(one['image']), other['image']) and torch.equal(turn(one['fixations']), other['fixations'])
    assert torch.allclose(turn(one['density']), other['density'], atol=1e-7)
    saliency = torch.from_numpy(rng(seed, 'saliency').random((24, 32)))
    for name, score in metrics.items(): assert torch.allclose(score(saliency[None], batch(one)), score(turn(saliency)[None], batch(other)), atol=1e-5), name

def batch(item): return {k: item[k][None] for k in ('fixations', 'density')}

@given(places, shares, st.integers(2, 4), st.integers(0, 9), st.booleans())
@quick
def test_scaling_image_and_fixations_together(tmp_path_factory, xy, share, k, seed, with_official):
    x, y = np.array(xy, float).T + np.array(share)[:, None]
    rgb, folder = rng(seed, 'rgb').integers(0, 255, (H, W, 3), np.uint8), tmp_path_factory.getbasetemp()/'scale'
    larger = lambda a: a.repeat(k, 0).repeat(k, 1)
    official = rng(seed, 'map').integers(1, 255, SIZE, np.uint8) if with_official else None
    one = SaliencyDataset(a_set(folder, rgb, x, y, 4., official), (24, 32))[0]
    other = SaliencyDataset(a_set(folder, larger(rgb), k * x, k * y, 4. * k, None if official is None else larger(official)), (24, 32))[0]
    assert torch.equal(one['fixations'], other['fixations']) and torch.allclose(one['density'], other['density'], atol=1e-6)
    assert (one['image'] - other['image']).abs().max() <= 1.01 / 255 / .224 # half a grey level may be rounded up or down
    saliency = torch.from_numpy(rng(seed, 'saliency').random((24, 32)))[None]
    for name, score in metrics.items(): assert torch.allclose(score(saliency, batch(one)), score(saliency, batch(other)), atol=1e-4), name

@given(places, shares, st.tuples(st.integers(1, 70), st.integers(1, 90)))
@quick
def test_fixation_map_loses_nothing_on_any_grid(xy, share, size):
    x, y = np.array(xy, float).T + np.array(share)[:, None]
    by_hand = np.zeros(size)
    for px, py in zip(x, y): by_hand[min(int(py * size[0] / H), size[0] - 1), min(int(px * size[1] / W), size[1] - 1)] += 1
    assert (fixation_map(x, y, SIZE, size) == by_hand).all() and abs(density(fixation_map(x, y, SIZE, size), 2.).sum() - 1) < 1e-5

@given(st.lists(st.tuples(st.integers(50, 700), st.integers(50, 500), st.integers(30, 90)), min_size=1, max_size=6), st.integers(0, 99))
@quick
def test_planted_fixations_are_found(planted, seed):
    far = [planted[0]] + [b for a, b in zip(planted, planted[1:]) if abs(a[0] - b[0]) + abs(a[1] - b[1]) > 60] # neighbours closer than that are one fixation
    far = [p for k, p in enumerate(far) if not k or abs(p[0] - far[k - 1][0]) + abs(p[1] - far[k - 1][1]) > 60]
    xy = np.concatenate([np.full((n, 2), (x, y)) + np.clip(rng(seed, k).normal(0, 1.5, (n, 2)), -4, 4) for k, (x, y, n) in enumerate(far)])
    found = found_fixations(xy, 240, 35)
    assert len(found) == len(far) and np.allclose(found[['x', 'y']], [p[:2] for p in far], atol=4) and np.allclose(found.duration, [p[2] / .24 for p in far], atol=1e-6)

def test_no_fixation_without_gaze():
    assert not len(found_fixations(np.full((300, 2), -1), 240, 35)) and not len(found_fixations(np.zeros((0, 2)), 240, 35))
    assert not len(found_fixations(np.arange(600).reshape(300, 2) * 9., 240, 35)) # never at rest

# ---------------------------------------------------------------- densities: cached, never stale; batches in parallel

def densities(found, **options): return [i['density'] for i in SaliencyDataset(found, (24, 32), **options).__getitems__(range(len(found)))]

@pytest.mark.parametrize('layout', [salicon, salicon_json]) # official and blurred
def test_cached_densities_are_the_same(layout, tmp_path):
    found, cache = read_fixations(layout(tmp_path)), tmp_path/'cache'
    plain = densities(found)
    for _ in range(2): assert all(map(torch.equal, densities(found, cache=cache), plain))
    files = sorted(cache.iterdir())
    assert len(files) == 3 and not [f for f in files if f.name.startswith('.')]
    stamps = [f.stat().st_mtime_ns for f in files]
    densities(found, cache=cache)
    assert [f.stat().st_mtime_ns for f in files] == stamps # read, not made again

def test_cache_is_never_stale(tmp_path):
    root, cache = salicon_json(tmp_path), tmp_path/'cache'
    found = read_fixations(root); densities(found, cache=cache)
    changed = [found.blurred(sigma=7), FixationSet('moved', found.images, found.fixations.assign(x=found.fixations.x * .9), found.sigma)]
    for other in changed: assert all(map(torch.equal, densities(other, cache=cache), densities(other)))
    assert SaliencyDataset(found, (12, 16), cache)[0]['density'].shape == (12, 16)
    official = read_fixations(salicon(tmp_path/'s')); densities(official, cache=cache)
    grey(Path(official.images.map_path['b']), np.eye(H, W).astype(np.uint8)) # another content under the same name
    assert all(map(torch.equal, densities(official, cache=cache), densities(official)))

@pytest.mark.parametrize('damage', [cut, text, lambda p: p.write_bytes(b''), lambda p: np.save(p, np.zeros((2, 2)))])
def test_damaged_cache_is_made_again(damage, tmp_path):
    found, cache = read_fixations(salicon_json(tmp_path)), tmp_path/'cache'
    plain = densities(found, cache=cache)
    for f in list(cache.iterdir()): damage(f)
    for _ in range(2): assert all(map(torch.equal, densities(found, cache=cache), plain))

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
    with pytest.raises(DataError, match='b.jpg'): cut(tmp_path/image_b); dataset.__getitems__([0, 1, 2])

def test_sixteen_bit_density_keeps_its_bits(tmp_path):
    root = salicon(tmp_path)
    wide = np.linspace(0, 60000, H * W).reshape(SIZE).astype(np.uint16)
    for i in IDS: grey(root/f'maps/train/{i}.png', wide)
    made = SaliencyDataset(check_images(read_salicon(root)), SIZE)[0]['density']
    assert np.allclose(made, wide / wide.sum(dtype=float), atol=1e-9)

def test_fingerprint_sees_every_change(tmp_path):
    found = read_fixations(salicon_json(tmp_path))
    twice = pd.concat([found.fixations, found.fixations.iloc[[0, 0]]]) # the same row twice more
    others = [found.blurred(sigma=1), FixationSet('t', found.images, twice, found.sigma), FixationSet('h', found.images.assign(height=H + 1), found.fixations, found.sigma),
              FixationSet('x', found.images, found.fixations.assign(x=found.fixations.x + .1), found.sigma), found.subset(['a', 'b'])]
    assert len({f.fingerprint() for f in [found, *others]}) == 6 and read_fixations(tmp_path).fingerprint() == found.fingerprint()

def test_every_layout_is_documented():
    assert len(LAYOUTS) == 10 and all('(' in name or name.startswith('images') for name in LAYOUTS)

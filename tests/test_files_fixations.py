"""Everybody's files, fixations: what was once read wrong without a word, or refused without need.

A test for each kind, with different examples of it.
"""
import json, unicodedata
import cv2, h5py, numpy as np, pytest
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix, issparse
from saliency_nb.core import DataError, Problems, files_in, folders_in
from saliency_nb.fixation_readers import read_fixations
from saliency_nb.matlab import read_mat
from saliency_nb.fixations import (SaliencyDataset, check_images, density, fixation_map, grid_sigma,
                                   read_gaze, read_salicon)
from saliency_nb.pictures import image_files, load_map, load_rgb
from saliency_nb.pictures import eight_bit
from test_fixations import IDS, SIZE, dots, gaze, mat, osie, own, picture, points, salicon, salicon_json

def table(root, text, **images):
    "A folder with images and a table of fixations."
    for name, size in images.items(): picture(root/f'images/{name}.png', size)
    (root/'fixations.csv').write_text(text)
    return root

def nine_and_more(root, *more):
    "Twelve fixations on image a at height 9, two on b, and more."
    rows = [('a', 5 + k, 9) for k in range(12)] + [*more, ('b', 7, 7), ('b', 8, 8)]
    return table(root, lines(rows), a=SIZE, b=SIZE)

def lines(rows): return 'image,x,y\n' + ''.join(f'{image},{x},{y}\n' for image, x, y in rows)

# ---------------------------------------------------------------- wrong numbers, silently

# 3:4, 2:3, 16:9, and the vertical blur there was for 35 px
@pytest.mark.parametrize('frame, wrong', [((1024, 768), 62), ((1200, 800), 70), ((720, 1280), 26)])
def test_blur_is_round_in_the_image(frame, wrong, tmp_path):
    h, w = frame
    root = table(tmp_path, lines([('a', w / 2, h / 2), ('a', w / 2, h / 2)]), a=frame)
    made = SaliencyDataset(read_fixations(root, sigma=35.), (240, 320))[0]['density'].numpy()
    def deviation(axis):
        weights = made.sum(1 - axis)
        n = len(weights)
        place = (np.arange(n) + .5) * frame[axis] / n
        mean = np.average(place, weights=weights)
        return np.sqrt(np.average((place - mean)**2, weights=weights))
    assert deviation(0) == pytest.approx(35, abs=1.5) and deviation(1) == pytest.approx(35, abs=1.5)
    assert 35 * 320 / w * h / 240 == pytest.approx(wrong, abs=1) # what one sigma for both axes gave

def test_blur_of_an_image_of_the_grids_shape_is_as_before():
    points = fixation_map([10, 60], [10, 30], SIZE, (24, 32))
    assert np.array_equal(density(points, grid_sigma(4, SIZE, (24, 32))), density(points, 2.))
    assert grid_sigma(24, (600, 800), (240, 320)) == (9.6, 9.6) # OSIE

def shares_in_a_table(root):
    spots = np.random.default_rng(0).uniform(0, 1, (30, 2))
    spots[7, 0] = 1.0586 # people look beside the picture
    return table(root, lines([('ab'[k % 2], *p) for k, p in enumerate(spots)]), a=(60, 80), b=(60, 80))

def shares_in_mat_files(root):
    salicon(root, maps=None)
    resolution = np.array(SIZE)
    for k, i in enumerate(IDS):
        shares = points(k) / SIZE[::-1]
        mat(root/f'fixations/train/{i}.mat', gaze=gaze([shares]), resolution=resolution)
    return root

def shares_in_json(root):
    salicon_json(root)
    path = root/'fixations_train2014.json'
    content = json.loads(path.read_text())
    for a in content['annotations']: a['fixations'] = (np.array(a['fixations']) / SIZE).tolist()
    path.write_text(json.dumps(content))
    return root

@pytest.mark.parametrize('layout', [shares_in_a_table, shares_in_mat_files, shares_in_json])
def test_shares_of_the_image_are_refused(layout, tmp_path):
    for problems in (None, Problems(strict=False)):
        with pytest.raises(DataError, match='shares of the image; multiply') as e:
            read_fixations(layout(tmp_path), problems)
        assert e.value.kind == 'unit of the coordinates'

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))

def sixteen_bits(path): Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)

def floating_point(path): Image.fromarray(RAMP.astype(np.float32) / 255).save(path)

def grey_and_alpha(path): Image.fromarray(np.dstack([RAMP, np.full_like(RAMP, 255)])).save(path)

def drawn_in_alpha(path):
    "Black, more and more transparent: on white the ramp."
    Image.fromarray(np.dstack([np.zeros((4, 256, 3), np.uint8), 255 - RAMP])).save(path)

def palette_with_a_clear_colour(path):
    image = Image.fromarray(RAMP).convert('P', palette=Image.Palette.ADAPTIVE, colors=256)
    image.putpalette(np.repeat(np.arange(256), 3).tolist())
    image.putdata(np.maximum(RAMP, 1).ravel().tolist())
    image.save(path, transparency=255) # white is clear, on white it stays white

RANGES = {
    '16 bits': (sixteen_bits, '.png'),
    '16 bits, TIFF': (sixteen_bits, '.tif'),
    'floating point': (floating_point, '.tif'),
    'grey and alpha': (grey_and_alpha, '.png'),
    'shape in alpha': (drawn_in_alpha, '.png'),
    'palette': (palette_with_a_clear_colour, '.png'),
}

@pytest.mark.parametrize('kind', RANGES)
def test_pixels_are_scaled_by_their_type(kind, tmp_path):
    write, ending = RANGES[kind]
    write(tmp_path/f'a{ending}')
    wrong = abs(load_rgb(tmp_path/f'a{ending}').astype(int) - RAMP[..., None])
    assert wrong.max() <= 1 # exact but for the palette's first entry and rounding of alpha

def test_a_dark_picture_stays_dark(tmp_path):
    Image.fromarray((RAMP // 8).astype(np.uint16) * 257).save(tmp_path/'a.png')
    assert load_rgb(tmp_path/'a.png').max() == 31

UNKNOWN_RANGES = {
    'float to 200': np.linspace(0, 200, 64, dtype=np.float32),
    'float from -1': np.linspace(-1, 1, 64, dtype=np.float32),
    'NaN': np.full(64, np.nan, np.float32),
    '32-bit integers': np.arange(64, dtype=np.int32) * 1000,
}

@pytest.mark.parametrize('pixels', UNKNOWN_RANGES.values(), ids=UNKNOWN_RANGES)
def test_pixels_of_unknown_range_are_refused(pixels, tmp_path):
    pixels = pixels.reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path/'a.tif')
    words = r'a\.tif: its pixels are .* not known what white is'
    with pytest.raises(DataError, match=words): load_rgb(tmp_path/'a.tif')
    with pytest.raises(DataError, match='stimulus 3'): eight_bit(pixels, 'stimulus 3')

UNKNOWN_VALUES = {
    'colour': (cv2.applyColorMap(RAMP, cv2.COLORMAP_JET), 'is in colour'),
    'alpha': (np.dstack([RAMP] * 3 + [255 - RAMP]), 'is transparent in part'),
    'NaN': (np.where(RAMP == 7, np.nan, RAMP).astype(np.float32), 'are no numbers'),
    'negative': (-RAMP.astype(np.float32), 'below 0'),
}

@pytest.mark.parametrize('pixels, words', UNKNOWN_VALUES.values(), ids=UNKNOWN_VALUES)
def test_densities_whose_values_are_not_known_are_refused(pixels, words, tmp_path):
    path = tmp_path/('a.tif' if pixels.dtype == np.float32 else 'a.png')
    Image.fromarray(pixels).save(path)
    with pytest.raises(DataError, match=words): load_map(path)

# ---------------------------------------------------------------- single fixations, whole images

def one_beside(root): return nine_and_more(root, ('a', 64.5, 9))

def one_without_a_number(root): return nine_and_more(root, ('a', '', 9))

def one_infinite(root): return nine_and_more(root, ('a', 'inf', 9))

def one_in_a_mat_file(root):
    salicon(root, maps=None)
    beside = np.append(points(0), [[65, 4]], axis=0)
    mat(root/'fixations/train/b.mat', gaze=gaze([beside]), resolution=np.array(SIZE))
    return root

@pytest.mark.parametrize('layout', [one_beside, one_without_a_number, one_infinite, one_in_a_mat_file])
def test_one_invalid_fixation_is_left_out_and_counted(layout, tmp_path):
    found = read_fixations(layout(tmp_path)) # strict
    images = 3 if layout is one_in_a_mat_file else 2
    assert found.left_out == 1 and [p.kind for p in found.notes] == ['fixations left out']
    assert len(found) == images and '1 more' in found._repr_markdown_()
    assert np.isfinite(found.fixations[['x', 'y']]).all(axis=None)
    assert found.fixations.index.tolist() == list(range(len(found.fixations)))
    assert len(SaliencyDataset(found, (24, 32)).__getitems__(range(images))) == images

def test_44_of_4146_cost_no_image(tmp_path): # the reported case
    g = np.random.default_rng(1)
    inside = [(f'i{k % 30:02d}', *g.uniform((0, 0), (64, 48))) for k in range(4146 - 44)]
    beside = [(f'i{k % 23:02d}', 64 + g.uniform(0, 5), 20) for k in range(44)]
    root = table(tmp_path, lines(inside + beside), **{f'i{k:02d}': SIZE for k in range(30)})
    found = read_fixations(root, Problems(strict=False))
    assert len(found) == 30 and len(found.fixations) == 4102 and found.left_out == 44

MOSTLY_INVALID = {
    'beside': [('b', 70, 7), ('b', 80, 7), ('b', 7, 7)],
    'blinks': [('b', '', ''), ('b', '', '')],
}

@pytest.mark.parametrize('rows', MOSTLY_INVALID.values(), ids=MOSTLY_INVALID)
def test_an_image_most_of_whose_fixations_are_invalid_is_left_out(rows, tmp_path):
    whole = [('a', 5 + k, 9) for k in range(30)]
    root = table(tmp_path, lines(whole + rows), a=SIZE, b=SIZE)
    problems = Problems(strict=False)
    assert read_fixations(root, problems).ids == ['a']
    assert [(p.image, p.kind) for p in problems] == [('b', 'fixation outside the image')]
    with pytest.raises(DataError, match='of image b is no point of the image'): read_fixations(root)

SPREAD = np.random.default_rng(2).uniform((0, 0), (64, 48), (60, 2))
ON_THE_BORDER = np.column_stack([np.full(20, 64.), SPREAD[:20, 1]])
MANY_OUTSIDE = {
    'axes': (SPREAD[:, ::-1], 'axis order'),
    'resolution': (SPREAD * 2, 'check the resolution'),
    'centre': (SPREAD - (32, 24), 'origin'),
    'origin': (np.concatenate([SPREAD[:40], ON_THE_BORDER]), 'from 0 or from 1'),
}

@pytest.mark.parametrize('changed, reason', MANY_OUTSIDE.values(), ids=MANY_OUTSIDE)
def test_a_set_with_many_outside_is_refused_with_the_reason(changed, reason, tmp_path):
    root = table(tmp_path, lines([('ab'[k % 2], *p) for k, p in enumerate(changed)]), a=SIZE, b=SIZE)
    kind = 'axes' if reason == 'axis order' else 'fixation outside the image'
    for problems in (None, Problems(strict=False)):
        with pytest.raises(DataError, match=reason) as e: read_fixations(root, problems)
        assert e.value.kind == kind and 'no points of their images' in str(e.value)

# ---------------------------------------------------------------- names and folders as they come

def litter(folder, ending):
    checkpoint = f'.ipynb_checkpoints/a-checkpoint{ending}'
    hidden = [f'._a{ending}', f'.hidden{ending}', f'__MACOSX/a{ending}', checkpoint]
    for name in [*hidden, 'Thumbs.db', 'desktop.ini']:
        (folder/name).parent.mkdir(exist_ok=True)
        (folder/name).write_bytes(b'\0\5\26\7')

@pytest.mark.parametrize('layout', [salicon, salicon_json, osie, own])
def test_hidden_files_are_passed_over(layout, tmp_path):
    root = layout(tmp_path)
    before = read_fixations(root)
    for folder in [p for p in tmp_path.rglob('*') if p.is_dir()] + [tmp_path]:
        for ending in ('.mat', '.png', '.jpg'): litter(folder, ending)
    after = read_fixations(root)
    assert after.ids == before.ids and after.fingerprint() == before.fingerprint()
    images = root/('stimuli' if layout is osie else 'images')
    assert set(image_files(images, deep=True)) == set(before.ids)
    assert not any(p.name.startswith(('.', '__')) for p in folders_in(root))

@pytest.mark.parametrize('ending', ['.MAT', '.Mat'])
def test_endings_in_upper_case(ending, tmp_path):
    root = salicon(tmp_path)
    for p in files_in(root/'fixations/train', {'.mat'}): p.rename(p.with_suffix(ending))
    for p in files_in(root/'images/train', {'.jpg'}): p.rename(p.with_suffix('.JPG'))
    assert read_salicon(root).ids == IDS

@pytest.mark.parametrize('form', ['NFC', 'NFD'])
@pytest.mark.parametrize('written', ['{}.jpg', 'train2014\\{}.jpg', 'C:\\data\\{}.JPG', './images/{}.jpg'])
def test_one_name_in_many_spellings(form, written, tmp_path):
    other = dict(NFC='NFD', NFD='NFC')[form]
    picture(tmp_path/f'images/{unicodedata.normalize(form, "café")}.jpg')
    name = written.format(unicodedata.normalize(other, 'café'))
    frames = [dict(id=0, file_name=name, height=SIZE[0], width=SIZE[1])]
    annotations = [dict(image_id=0, worker_id=1, fixations=points(0)[:, ::-1].tolist())]
    text = json.dumps(dict(images=frames, annotations=annotations))
    (tmp_path/'fixations_train.json').write_text(text)
    assert read_fixations(tmp_path).ids == ['café']

@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-be'])
def test_json_with_a_byte_order_mark(encoding, tmp_path):
    root = salicon_json(tmp_path)
    before = read_fixations(root).fingerprint()
    path = root/'fixations_train2014.json'
    path.write_text(path.read_text(), encoding=encoding)
    assert read_fixations(root).fingerprint() == before

# ---------------------------------------------------------------- formats

def headed(path):
    "Give HDF5 the head of a MATLAB 7.3 file."
    head = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(116)
    with open(path, 'r+b') as f: f.write(head + bytes(8) + b'\x00\x02IM')

CLASSES = {'b': 'logical', 'U': 'char', 'c': 'double', 'f': 'double', 'i': 'int32'}

def stored73(group, name, value):
    "Write a variable as MATLAB 7.3 does."
    if isinstance(value, dict): return stored_struct(group, name, value)
    if issparse(value): return stored_sparse(group, name, value)
    if isinstance(value, list): return stored_cell(group, name, value, 'cell')
    value = np.atleast_2d(value)
    kind = CLASSES[value.dtype.kind]
    if kind == 'char': value = np.array([list(map(ord, text)) for text in value[0]], np.uint16)
    if kind == 'logical': value = value.astype(np.uint8)
    if value.dtype.kind == 'c': value = value.view([('real', 'f8'), ('imag', 'f8')])
    group[name] = np.array(value.shape) if not value.size else value.T
    if not value.size: group[name].attrs['MATLAB_empty'] = 1
    group[name].attrs['MATLAB_class'] = np.bytes_(kind)

def stored_struct(group, name, value):
    for k, v in value.items(): stored73(group, f'{name}/{k}', v)
    group[name].attrs['MATLAB_class'] = np.bytes_('struct')

def stored_sparse(group, name, value):
    parts = dict(data=value.data, ir=value.indices, jc=value.indptr)
    for k, v in parts.items(): group[f'{name}/{k}'] = v
    group[name].attrs['MATLAB_sparse'] = value.shape[0]

def stored_cell(group, name, values, kind=''):
    for k, v in enumerate(values): stored73(group.file, f'#refs#/{name}{k}', v)
    held = [group.file[f'#refs#/{name}{k}'].ref for k in range(len(values))]
    data = group.create_dataset(name, data=np.array([held]).T, dtype=h5py.ref_dtype)
    if kind: data.attrs['MATLAB_class'] = np.bytes_(kind)

def matlab73(path, observers, **more):
    """A file as MATLAB writes it with -v7.3 (HDF5).

    A struct array is a group, each field a column of references into #refs#; arrays are transposed.
    """
    with h5py.File(path, 'w', userblock_size=512) as f:
        f.create_group('gaze').attrs['MATLAB_class'] = np.bytes_('struct')
        for field in ('location', 'timestamp'):
            stored_cell(f['gaze'], field, [np.zeros((9, 2))] * len(observers))
        stored_cell(f['gaze'], 'fixations', [np.asarray(xy, float) for xy in observers])
        for name, value in more.items(): stored73(f, name, np.asarray(value, float))
    headed(path)

OBSERVERS = {'three observers': [points(0), points(1), points(2)[:1]], 'one observer': [points(3)]}

@pytest.mark.parametrize('observers', OBSERVERS.values(), ids=OBSERVERS)
def test_matlab_73(observers, tmp_path):
    matlab73(tmp_path/'new.mat', observers, resolution=SIZE)
    savemat(tmp_path/'old.mat', dict(gaze=gaze(observers), resolution=np.array(SIZE)))
    new, old = read_gaze(tmp_path/'new.mat'), read_gaze(tmp_path/'old.mat')
    assert new[1] == old[1] == SIZE and new[0].equals(old[0])

def alike(one, two):
    "Whether two variables are the same, in whatever objects they are."
    if hasattr(one, '__dict__') and not issparse(one):
        fields = [k for k in vars(one) if k[0] != '_']
        return all(alike(getattr(one, k), getattr(two, k)) for k in fields)
    if issparse(one): return issparse(two) and alike(one.toarray(), two.toarray())
    one, two = np.asarray(one), np.asarray(two)
    if not one.size: return not two.size
    if one.dtype != object: return one.dtype.kind == two.dtype.kind and np.array_equal(one, two)
    return one.shape == two.shape and all(map(alike, one.flat, two.flat))

KEPT = dict(text='dog', texts=np.array(['dog', 'cat']), number=4., column=np.ones((3, 1)),
    logical=np.eye(3) > 0, complex=np.array([[1 + 2j, 3]]), whole=np.arange(6, dtype=np.int32).reshape(2, 3),
    nothing=np.zeros((0, 2)), sparse=csc_matrix(np.eye(4)), cell=['a', 2., np.ones((2, 3))],
    struct=dict(a='b', c=dict(d=1.)))

@pytest.mark.parametrize('kind', KEPT)
def test_matlab_73_holds_what_older_files_hold(kind, tmp_path):
    value = KEPT[kind]
    with h5py.File(tmp_path/'new.mat', 'w', userblock_size=512) as f: stored73(f, 'kept', value)
    headed(tmp_path/'new.mat')
    old = np.array(value + [None], object)[:-1] if isinstance(value, list) else value
    savemat(tmp_path/'old.mat', dict(kept=old))
    assert alike(*(read_mat(tmp_path/name, 'kept') for name in ('old.mat', 'new.mat')))

def with_a_count_of_2():
    "Two fixations on one pixel are not black."
    counts = dots([(0, 0), (63, 47)], SIZE)
    counts[20, 30] = 2
    return counts

THREE = dots([(0, 0), (63, 47), (30, 20)], SIZE)
SHOWN = {
    'points': ('.png', THREE),
    'counts': ('.png', with_a_count_of_2()),
    '16 bits': ('.PNG', THREE.astype(np.uint16) * 257),
}

@pytest.mark.parametrize('ending, pixels', SHOWN.values(), ids=SHOWN)
def test_pictures_of_fixations_in_salicons_layout(ending, pixels, tmp_path):
    root = salicon(tmp_path)
    for i in IDS:
        (root/f'fixations/train/{i}.mat').unlink()
        Image.fromarray(pixels).save(root/f'fixations/train/{i}{ending}', format='png')
    found = check_images(read_fixations(root))
    of_b = found.fixations[found.fixations.image == 'b']
    assert found.ids == IDS
    assert of_b[['x', 'y']].to_numpy().tolist() == [[.5, .5], [30.5, 20.5], [63.5, 47.5]]

NO_FIXATIONS = {
    'inverted': (255 - dots([(5, 5)], SIZE), 'inverted picture'),
    'density': (np.full(SIZE, 9, np.uint8), 'is a density'),
    'size': (dots([(5, 5)], (24, 32)), '24 x 32 px but its image'),
}

@pytest.mark.parametrize('pixels, words', NO_FIXATIONS.values(), ids=NO_FIXATIONS)
def test_pictures_that_show_no_fixations(pixels, words, tmp_path):
    root = salicon(tmp_path, maps=None)
    for i in IDS:
        (root/f'fixations/train/{i}.mat').unlink()
        shown = pixels if i == 'b' else dots([(3, 3)], SIZE)
        Image.fromarray(shown).save(root/f'fixations/train/{i}.png')
    problems = Problems(strict=False)
    assert read_fixations(root, problems).ids == ['a', 'c']
    assert words in problems[0].sentence and problems[0].kind == 'unreadable fixations'

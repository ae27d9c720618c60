"Every kind of fault, planted into clean data, is found and named; clean data give none; real OSIE is usable."
import json, os, re, shutil, signal, subprocess, sys, time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from PIL import Image
from scipy.io import loadmat, savemat
from saliency_nb import cli
from saliency_nb.checks import check_data
from saliency_nb.contents import KINDS
from saliency_nb.core import read_json, write_json
from saliency_nb.world import make_world
from test_fixations import picture

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get('SALIENCY_NB_DATA', ROOT.parent/'shared/data'))/'osie'
SIZE = 96, 128 # height and width of a world's images
CORNER = 128, 96 # x and y of their last pixel, counted from one

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('checks')/'world', n_images=48, size=SIZE, seed=0)

# ways of planting a fault

def files(root, folder): return sorted((root/folder).iterdir())

def nth(root, folder, n=0): return files(root, folder)[n]

def cut(path, size): path.write_bytes(path.read_bytes()[:size])

def replace(path, content):
    "Not the file that a link leads to."
    path.unlink()
    path.write_bytes(content)

def swap(a, b):
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)

def rotated(root, folder):
    "Each file gets the content of the seventh after it."
    paths = files(root, folder)
    contents = [p.read_bytes() for p in paths]
    for p, content in zip(paths, contents[7:] + contents[:7]): p.write_bytes(content)

def twice(root, folder): shutil.copy(nth(root, folder, 0), nth(root, folder, 1))

# fixations

def gaze(path, change):
    "Rewrite a file of fixations."
    mat = loadmat(path)
    for cell in mat['gaze'].ravel(): cell['fixations'][:] = change(cell['fixations'])
    savemat(path, dict(gaze=mat['gaze'], resolution=mat['resolution']))

def everywhere(root, change):
    for split in ('train', 'val'):
        for p in files(root, f'fixations/{split}'): gaze(p, change)

def looked(path, *observers):
    "A file with what these observers looked at."
    cells = np.array([(spots,) for spots in observers], [('fixations', object)])
    savemat(path, dict(gaze=cells, resolution=[*SIZE]))

def last_at(path, x, y):
    "Every observer's last fixation is there."
    gaze(path, lambda xy: np.vstack([xy[:-1], [[x, y]]]) if len(xy) else xy)

def exchanged_axes(xy): return np.minimum(xy[:, ::-1], CORNER)

def reflected(xy, signs):
    "Signs are -1 for the axis that is turned round."
    ends = np.where(np.array(signs) < 0, np.array(CORNER) + 1, 0)
    return np.clip(ends + xy * signs, 1, CORNER)

# scene graphs

def graphs(root, change):
    g = read_json(root/'scene_graphs.json')
    change(g)
    write_json(g, root/'scene_graphs.json')

def first_graph(g): return next(iter(g.values()))

def first_object(g): return next(iter(first_graph(g)['objects'].values()))

def graph(root, **values): graphs(root, lambda g: first_graph(g).update(values))

def thing(root, **values): graphs(root, lambda g: first_object(g).update(values))

# images and maps

def redrawn(path, change): change(Image.open(path)).save(path)

def half(image): return image.resize((64, 48))

def quarter_turn(image): return image.transpose(Image.Transpose.ROTATE_90)

def other_pixels(path, pixels, ending):
    path.unlink()
    Image.fromarray(pixels).save(path.with_suffix(ending))

def with_orientation(path, value):
    image = Image.open(path)
    exif = image.getexif()
    exif[0x112] = value
    image.save(path, quality=95, exif=exif)

def without_maps(root): shutil.rmtree(root/'maps')

GREY_FLOATS = np.linspace(0, 200, 96 * 128, dtype=np.float32).reshape(SIZE)
RED = np.full((*SIZE, 3), (200, 30, 30), np.uint8)

# faults

IMAGES, MAPS = 'images/train', 'maps/train'
FIXATIONS, GRAPHS = 'fixations/train', 'scene_graphs.json'
ORPHANS = {'fixations without image', 'map without image', 'regions without image'}
BARE = {'image without fixations', 'image without map', 'image without regions'}

def object_without_name(root): graphs(root, lambda g: first_object(g).pop('name'))

def graph_of_nothing(root): graphs(root, lambda g: g.update(stranger=first_graph(g)))

def exchanged_without_maps(root):
    without_maps(root)
    everywhere(root, exchanged_axes)

def all_passed_on(root):
    for split in ('train', 'val'): rotated(root, f'fixations/{split}')

# fault -> (kind that must be found, other kinds that it may bring along, what makes it)
MISSING_OR_UNREADABLE = dict(
    no_train_images=('missing split', ORPHANS, lambda r: shutil.rmtree(r/IMAGES)),
    truncated_jpeg=('unreadable image', (), lambda r: cut(nth(r, IMAGES, 3), 900)),
    text_as_image=('unreadable image', (), lambda r: nth(r, 'images/val').write_text('no image')),
    broken_mat=('unreadable fixations', (), lambda r: nth(r, FIXATIONS, 1).write_bytes(b'MATLAB 5.0')),
    mat_without_gaze=('unreadable fixations', (), lambda r: savemat(nth(r, FIXATIONS, 1), dict(something=1))),
    mat_of_another_layout=('unreadable fixations', (), lambda r: looked(nth(r, FIXATIONS, 1), np.arange(5.))),
    broken_map=('unreadable map', (), lambda r: nth(r, MAPS).write_bytes(b'\x89PNG')),
    truncated_graphs=('unreadable regions', (), lambda r: cut(r/GRAPHS, 3000)),
    empty_graphs=('unreadable regions', (), lambda r: (r/GRAPHS).write_text('{}')),
    object_without_name=('unreadable regions', (), object_without_name),
    fixations_missing=('image without fixations', (), lambda r: nth(r, 'fixations/val', 2).unlink()),
    nobody_looked=('image without fixations', (), lambda r: looked(nth(r, FIXATIONS, 2))),
    image_missing=('fixations without image', ORPHANS, lambda r: nth(r, 'images/val', 1).unlink()),
    map_missing=('image without map', (), lambda r: nth(r, MAPS, 4).unlink()),
    map_of_nothing=('map without image', (), lambda r: shutil.copy(nth(r, MAPS), r/MAPS/'stranger.png')),
    graph_missing=('image without regions', (), lambda r: graphs(r, lambda g: g.pop(next(iter(g))))),
    graph_of_nothing=('regions without image', (), graph_of_nothing))
OF_ANOTHER_SIZE = dict(
    thumbnail=('image of another size', (), lambda r: redrawn(nth(r, IMAGES, 5), half)),
    turned_map=('map of another size', (), lambda r: redrawn(nth(r, 'maps/val'), quarter_turn)),
    graph_size=('scene graph of another size', (), lambda r: graph(r, width=300, height=300)))
WRONG_COORDINATES = dict(
    out_of_bounds=('fixations left out', (), lambda r: last_at(nth(r, FIXATIONS), 500, 20)),
    nan_fixation=('fixations left out', (), lambda r: last_at(nth(r, FIXATIONS), np.nan, 20)),
    all_outside=('fixation outside the image', (), lambda r: gaze(nth(r, FIXATIONS), lambda xy: xy + 500)),
    another_resolution=('fixation outside the image', (), lambda r: everywhere(r, lambda xy: 2 * xy)),
    shares=('unit of the coordinates', (), lambda r: everywhere(r, lambda xy: xy / CORNER)),
    half_resolution=('unit of the coordinates', {'chance', 'axes', 'fixations of another image'},
                     lambda r: everywhere(r, lambda xy: xy / 2)))
ODD_CONTENTS = dict(
    turned_by_exif=('rotated by its EXIF data', (), lambda r: with_orientation(nth(r, IMAGES, 2), 6)),
    mirrored_by_exif=('rotated by its EXIF data', (), lambda r: with_orientation(nth(r, 'images/val', 2), 2)),
    floats_of_unknown_range=('unreadable image', (),
                             lambda r: other_pixels(nth(r, IMAGES, 2), GREY_FLOATS, '.tif')),
    coloured_map=('unreadable map', (), lambda r: other_pixels(nth(r, MAPS, 2), RED, '.png')),
    black_map=('empty map', (), lambda r: Image.new('L', CORNER).save(nth(r, MAPS, 6))),
    graph_without_objects=('empty regions', (), lambda r: graph(r, objects={})),
    flat_box=('region without area', (), lambda r: thing(r, h=0)),
    box_outside=('region outside the image', (), lambda r: thing(r, x=100, w=90)),
    unknown_name=('name without category', (), lambda r: thing(r, name='quetzalcoatlus')))
TWICE = dict(
    jpg_and_png=('same id twice', {'same picture twice'},
                 lambda r: Image.open(nth(r, IMAGES)).save(nth(r, IMAGES).with_suffix('.png'))),
    id_in_both_splits=('same id twice', ORPHANS | BARE,
                       lambda r: nth(r, 'images/val').rename(r/'images/val'/nth(r, IMAGES).name)),
    picture_twice=('same picture twice', {'fixations of another image'}, lambda r: twice(r, IMAGES)),
    picture_twice_in_another_format=('same picture twice', BARE,
                                     lambda r: Image.open(nth(r, IMAGES)).save(r/IMAGES/'again.png')),
    leak=('picture in train and val', (), lambda r: shutil.copy(nth(r, IMAGES), nth(r, 'images/val'))),
    fixations_twice=('same fixations twice', {'fixations of another image'}, lambda r: twice(r, FIXATIONS)))
WRONG_AXES_OR_IMAGES = dict(
    exchanged=('axes', {'fixation outside the image'}, lambda r: everywhere(r, lambda xy: xy[:, ::-1])),
    exchanged_and_clipped=('axes', {'same fixations twice'}, lambda r: everywhere(r, exchanged_axes)),
    exchanged_without_maps=('axes', (), exchanged_without_maps),
    upside_down=('axes', (), lambda r: everywhere(r, lambda xy: reflected(xy, (1, -1)))),
    mirrored=('axes', (), lambda r: everywhere(r, lambda xy: reflected(xy, (-1, 1)))),
    passed_on=('fixations of another image', {'chance'}, lambda r: rotated(r, FIXATIONS)),
    all_passed_on=('chance', {'fixations of another image'}, all_passed_on),
    two_exchanged=('fixations of another image', (), lambda r: swap(*files(r, FIXATIONS)[:2])))
FAULTS = MISSING_OR_UNREADABLE | OF_ANOTHER_SIZE | WRONG_COORDINATES
FAULTS |= ODD_CONTENTS | TWICE | WRONG_AXES_OR_IMAGES

@pytest.mark.parametrize('kind, along, plant', FAULTS.values(), ids=FAULTS)
def test_planted_fault_is_found_and_named(world, tmp_path, kind, along, plant):
    shutil.copytree(world, tmp_path/'world')
    plant(tmp_path/'world')
    checked = check_data(tmp_path/'world')
    s = checked.summary
    found = s['errors'] | s['warnings']
    assert kind in found, s
    assert set(found) - {kind} <= set(along), s # and nothing that was not planted
    assert checked.usable == (not s['errors']) and kind in checked.sentence
    for named, level, _, sentence in checked.findings:
        assert sentence.endswith('.') and '\n' not in sentence and level == KINDS[named][0]

def test_every_kind_is_planted():
    planted = {kind for kind, *_ in FAULTS.values()}
    assert planted | {'left out by the reader'} == set(KINDS) # that one in the test below

def test_clean_world_gives_nothing(world, tmp_path):
    checked = check_data(world, tmp_path)
    assert checked.usable and not checked.findings and checked.summary['fit']['auc']['as given'] > .8
    unused = shutil.ignore_patterns('maps', 'scene_graphs.json')
    without = shutil.copytree(world, tmp_path/'without', ignore=unused)
    assert not check_data(without).findings

@pytest.mark.parametrize('seed', range(1, 4))
def test_other_clean_worlds_give_nothing(tmp_path, seed):
    root = make_world(tmp_path/'world', n_images=40, size=SIZE, seed=seed)
    assert not check_data(root).findings
    without_maps(root)
    assert not check_data(root).findings

# the page and the command

class Page(HTMLParser):
    "Tags that are open, and how often each occurs."
    VOID = {'meta', 'image', 'circle', 'path', 'link', 'br', 'img'}
    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}
    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        may_be_open = tag == 'path' and not self.get_starttag_text().endswith('/>')
        if may_be_open or tag not in self.VOID: self.open.append(tag)
    def handle_startendtag(self, tag, attrs): self.count[tag] = self.count.get(tag, 0) + 1
    def handle_endtag(self, tag): assert self.open.pop() == tag, tag

def test_page_and_summary(world, tmp_path):
    shutil.copytree(world, tmp_path/'world')
    thing(tmp_path/'world', name='<script>alert(1)</script>')
    checked = check_data(tmp_path/'world', tmp_path/'out', samples=5)
    text = (tmp_path/'out/index.html').read_text()
    page = Page()
    page.feed(text)
    assert not page.open and page.count['section'] == 5 and page.count['svg'] == 15
    assert 'prefers-color-scheme:dark' in text
    shown = re.findall(r'<h3>(.+?)</h3>', text)
    f = checked.contents.fixations
    assert text.count('<circle') == f.image.isin(shown).sum() # every fixation of the samples is drawn
    assert '<script' not in text # hostile names are text
    assert not re.findall(r'(?:src|href)="(?!data:)', text) # and nothing is loaded
    summary = json.loads((tmp_path/'out/summary.json').read_text())
    assert summary['usable'] and summary['warnings'] == {'name without category': 1}
    assert summary['counts']['images train'] + summary['counts']['images val'] == 48
    assert pd.read_csv(tmp_path/'out/findings.csv').kind.tolist() == ['name without category']

@pytest.fixture
def command(capsys):
    "`saliency-nb check-data` in this process, with what it writes."
    def run(root, out, *flags):
        code = cli.main(['check-data', str(root), '--out', str(out), *flags])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)
    return run

def is_one_line(err): return len(err.strip().splitlines()) == 1

def test_command(world, tmp_path, command):
    done = command(world, tmp_path/'a')
    assert done.code == 0 and not done.err and 'nothing is wrong' in done.out
    assert (tmp_path/'a/index.html').is_file()
    shutil.copytree(world, tmp_path/'world')
    nth(tmp_path/'world', MAPS).unlink()
    done = command(tmp_path/'world', tmp_path/'b')
    assert done.code == 0 and 'image without map (1)' in done.out
    done = command(tmp_path/'world', tmp_path/'b', '--strict')
    assert done.code == 1 and done.err.startswith('saliency-nb: ')
    nth(tmp_path/'world', IMAGES).write_bytes(b'')
    done = command(tmp_path/'world', tmp_path/'b')
    assert done.code == 1 and is_one_line(done.err) and 'unreadable image (1)' in done.err
    assert json.loads((tmp_path/'b/summary.json').read_text())['usable'] is False
    for wrong in (tmp_path/'nowhere', tmp_path/'b'):
        done = command(wrong, tmp_path/'c')
        assert done.code == 1 and is_one_line(done.err)

SAYS_WHEN_IT_STARTS = """
import sys
from saliency_nb import cli, contents
parallel = contents.parallel
def told(*arguments):
    print('started', flush=True)
    return parallel(*arguments)
contents.parallel = told
sys.exit(cli.main(sys.argv[1:]))
"""

def wait_for_start(process):
    "Until it says so; an empty line means that it has ended."
    while 'started' not in (line := process.stdout.readline()): assert line, process.stderr.read()

def test_interrupt_stops_at_once(tmp_path):
    root = make_world(tmp_path/'world', n_images=40, size=SIZE, seed=0)
    for p in files(root, IMAGES) + files(root, 'images/val'): # many, so that there is something to interrupt
        for k in range(100): os.symlink(p, p.with_name(f'copy{k}_{p.name}'))
    check = [sys.executable, '-c', SAYS_WHEN_IT_STARTS, 'check-data', str(root), '--out', str(tmp_path/'out')]
    process = subprocess.Popen(check, env=os.environ | dict(PYTHONPATH=str(ROOT)), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_start(process)
    time.sleep(.3)
    start = time.time()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and time.time() - start < 20 and is_one_line(err), err
    assert not [*(tmp_path/'out').glob('*')], err # nothing is written

# OSIE, and other layouts

def needs_osie():
    if not (REAL/'stimuli').is_dir(): pytest.skip(f'OSIE is not at {REAL}')

@pytest.fixture
def osie(tmp_path):
    "The first 24 images."
    needs_osie()
    for name in ('stimuli', 'labels'):
        (tmp_path/'osie'/name).mkdir(parents=True)
        for p in files(REAL, name)[:24]: os.symlink(p, tmp_path/'osie'/name/p.name)
    (tmp_path/'osie/eye').mkdir()
    mat = loadmat(REAL/'eye/fixations.mat')
    savemat(tmp_path/'osie/eye/fixations.mat', dict(fixations=mat['fixations'][:24]))
    return tmp_path/'osie'

def nothing_marked(root, *shape):
    "Labels of this shape in place of those of the first image."
    nth(root, 'labels').unlink()
    savemat(root/'labels/1001.mat', dict(data=np.zeros(shape, np.uint8)))

def small_image(root):
    nth(root, 'stimuli').unlink()
    Image.new('RGB', (80, 60)).save(root/'stimuli/1001.jpg')

# fault -> (kind that must be found, what makes it)
OSIE_FAULTS = dict(
    image_missing=('fixations without image', lambda r: nth(r, 'stimuli').unlink()),
    labels_missing=('image without regions', lambda r: nth(r, 'labels').unlink()),
    labels_of_nothing=('regions without image', lambda r: shutil.copy(nth(r, 'labels'), r/'labels/9999.mat')),
    broken_labels=('unreadable regions', lambda r: replace(nth(r, 'labels'), b'MATLAB')),
    labels_of_another_shape=('unreadable regions', lambda r: nothing_marked(r, 12, 6, 8)),
    nothing_marked=('empty regions', lambda r: nothing_marked(r, 12, 600, 800)),
    broken_image=('unreadable image', lambda r: replace(nth(r, 'stimuli', 3), b'no')),
    broken_fixations=('unreadable fixations', lambda r: replace(r/'eye/fixations.mat', b'MATLAB')),
    wrong_size=('image of another size', small_image))

@pytest.mark.parametrize('kind, plant', OSIE_FAULTS.values(), ids=OSIE_FAULTS)
def test_fault_in_osie_is_found(osie, kind, plant):
    plant(osie)
    s = check_data(osie).summary
    assert kind in s['errors'] | s['warnings'], s

def test_real_osie_is_usable(tmp_path):
    needs_osie()
    checked = check_data(REAL, tmp_path)
    s = checked.summary
    print(f"\nOSIE: {s['seconds']} s; {checked.sentence}")
    assert checked.usable and s['counts']['fixations'] == 98321 and s['warnings'] == {'empty regions': 4}
    assert {i.split('/')[1] for *_, i, _ in checked.findings} == {'1029', '1488', '1541', '1652'}
    auc = s['fit']['auc']
    assert auc['as given'] == max(auc.values()) and auc['as given'] > s['fit']['auc_other_images'] + .03

def observers(folder):
    "Fixations of a world's split, as tables."
    for p in files(folder, ''):
        for k, g in enumerate(loadmat(p)['gaze'].ravel()):
            spots = g['fixations']
            if not len(spots): continue
            yield pd.DataFrame(spots - .5, columns=['x', 'y']).assign(image=p.stem, observer=str(k))

def face_mask(folder):
    "A square in the middle, as a mask of the image that the folder is called after."
    folder.mkdir(parents=True)
    square = np.pad(np.full((40, 40), 255, np.uint8), 28)
    Image.fromarray(square).resize(CORNER).save(folder/'face.png')

def test_other_layouts_are_checked_through_their_readers(world, tmp_path):
    shutil.copytree(world/'images/val', tmp_path/'images')
    table = pd.concat(observers(world/'fixations/val'), ignore_index=True)
    for image in table.image.unique(): face_mask(tmp_path/'masks'/image)
    table.to_csv(tmp_path/'fixations.csv', index=False)
    clean = check_data(tmp_path)
    assert clean.usable and len(clean.contents.images) == 12, clean.sentence
    assert clean.contents.regions.semantics == ['face'], clean.sentence
    broken, other = table.image.unique()[:2]
    table = table.astype({'x': object})
    table.loc[table.image == broken, 'x'] = 'left'
    table.to_csv(tmp_path/'fixations.csv', index=False)
    (tmp_path/'masks'/other/'face.png').write_bytes(b'no image')
    checked = check_data(tmp_path)
    found = {(kind, image) for kind, _, image, _ in checked.findings}
    planted = {('unreadable fixations', f'all/{broken}'), ('unreadable regions', f'all/{other}')}
    assert not checked.usable and planted <= found

LOOKS = {'one': [(64, 48)], 'one spot': [(64, 48), (64, 48)], 'two': [(64, 48), (20, 20)]}

@pytest.mark.parametrize('looks', LOOKS.values(), ids=LOOKS)
def test_few_equal_fixations_are_no_twins(looks, tmp_path):
    for name in 'ab': picture(tmp_path/f'images/{name}.png', SIZE)
    rows = [(i, *xy) for i in 'ab' for xy in looks]
    pd.DataFrame(rows, columns=['image', 'x', 'y']).to_csv(tmp_path/'fixations.csv', index=False)
    assert check_data(tmp_path).usable

# coordinates -> (lowest, highest, how they are read, the fault)
COORDINATES = dict(
    shares=(0, 1.0586, {}, ['unit of the coordinates']),
    axes=((0, 0), (96, 128), {}, ['axes']),
    half=((0, 0), (60, 44), {}, ['unit of the coordinates']),
    right=((0, 0), (127, 95), dict(sigma=9), []))

@pytest.mark.parametrize('low, high, reading, errors', COORDINATES.values(), ids=COORDINATES)
def test_no_table_of_wrong_numbers_is_usable(low, high, reading, errors, tmp_path):
    for name in 'abc': picture(tmp_path/f'images/{name}.png', SIZE)
    xy = np.random.default_rng(0).uniform(low, high, (60, 2))
    table = pd.DataFrame(dict(image=[*'abc'] * 20, x=xy[:, 0], y=xy[:, 1]))
    table.to_csv(tmp_path/'fixations.csv', index=False)
    checked = check_data(tmp_path, tmp_path/'page', reading=reading)
    assert checked.usable == (not errors) and list(checked.summary['errors']) == errors
    assert (tmp_path/'page/index.html').is_file()
    assert errors or checked.contents.sigma == 9

"Every kind of fault, planted into a clean data set, is found and named; clean data give none; the real OSIE is usable."
import json, os, re, shutil, signal, subprocess, sys, time
from html.parser import HTMLParser
from pathlib import Path
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

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('checks')/'world', n_images=48, size=(96, 128), seed=0)

def files(root, folder): return sorted((root/folder).iterdir())
def gaze(path, change):
    "Rewrite a file of fixations."
    mat = loadmat(path)
    for cell in mat['gaze'].ravel(): cell['fixations'][:] = change(cell['fixations'])
    savemat(path, dict(gaze=mat['gaze'], resolution=mat['resolution']))
def everywhere(root, change):
    for split in ('train', 'val'):
        for p in files(root, f'fixations/{split}'): gaze(p, change)
def rotated(root, folder):
    paths = files(root, folder); contents = [p.read_bytes() for p in paths]
    for p, content in zip(paths, contents[7:] + contents[:7]): p.write_bytes(content)
def graphs(root, change):
    g = read_json(root/'scene_graphs.json'); change(g); write_json(g, root/'scene_graphs.json')
def first_object(g): return next(iter(next(iter(g.values()))['objects'].values()))
def without_maps(root): shutil.rmtree(root/'maps')

# fault -> (kind that must be found, other kinds that it may bring along, what makes it)
FAULTS = dict(
    no_train_images=('missing split', {'fixations without image', 'map without image', 'regions without image'}, lambda r: shutil.rmtree(r/'images/train')),
    truncated_jpeg=('unreadable image', (), lambda r: files(r, 'images/train')[3].write_bytes(files(r, 'images/train')[3].read_bytes()[:900])),
    text_as_image=('unreadable image', (), lambda r: files(r, 'images/val')[0].write_text('no image')),
    broken_mat=('unreadable fixations', (), lambda r: files(r, 'fixations/train')[1].write_bytes(b'MATLAB 5.0')),
    mat_without_gaze=('unreadable fixations', (), lambda r: savemat(files(r, 'fixations/train')[1], dict(something=1))),
    mat_of_another_layout=('unreadable fixations', (), lambda r: savemat(files(r, 'fixations/train')[1], dict(gaze=np.array([(np.arange(5.),)], [('fixations', object)]), resolution=[96, 128]))),
    broken_map=('unreadable map', (), lambda r: files(r, 'maps/train')[0].write_bytes(b'\x89PNG')),
    truncated_graphs=('unreadable regions', (), lambda r: (r/'scene_graphs.json').write_text((r/'scene_graphs.json').read_text()[:3000])),
    empty_graphs=('unreadable regions', (), lambda r: (r/'scene_graphs.json').write_text('{}')),
    object_without_name=('unreadable regions', (), lambda r: graphs(r, lambda g: first_object(g).pop('name'))),
    fixations_missing=('image without fixations', (), lambda r: files(r, 'fixations/val')[2].unlink()),
    nobody_looked=('image without fixations', (), lambda r: savemat(files(r, 'fixations/train')[2], dict(gaze=np.zeros(0, [('fixations', object)]), resolution=[96, 128]))),
    image_missing=('fixations without image', {'map without image', 'regions without image'}, lambda r: files(r, 'images/val')[1].unlink()),
    map_missing=('image without map', (), lambda r: files(r, 'maps/train')[4].unlink()),
    map_of_nothing=('map without image', (), lambda r: shutil.copy(files(r, 'maps/train')[0], r/'maps/train/stranger.png')),
    graph_missing=('image without regions', (), lambda r: graphs(r, lambda g: g.pop(next(iter(g))))),
    graph_of_nothing=('regions without image', (), lambda r: graphs(r, lambda g: g.update(stranger=next(iter(g.values()))))),
    thumbnail=('image of another size', (), lambda r: Image.open(files(r, 'images/train')[5]).resize((64, 48)).save(files(r, 'images/train')[5])),
    turned_map=('map of another size', (), lambda r: Image.open(files(r, 'maps/val')[0]).transpose(Image.Transpose.ROTATE_90).save(files(r, 'maps/val')[0])),
    graph_size=('scene graph of another size', (), lambda r: graphs(r, lambda g: next(iter(g.values())).update(width=300, height=300))),
    out_of_bounds=('fixations left out', (), lambda r: gaze(files(r, 'fixations/train')[0], lambda xy: np.vstack([xy[:-1], [[500, 20]]]) if len(xy) else xy)),
    nan_fixation=('fixations left out', (), lambda r: gaze(files(r, 'fixations/train')[0], lambda xy: np.vstack([xy[:-1], [[np.nan, 20]]]) if len(xy) else xy)),
    all_outside=('fixation outside the image', (), lambda r: gaze(files(r, 'fixations/train')[0], lambda xy: xy + 500)),
    another_resolution=('fixation outside the image', (), lambda r: everywhere(r, lambda xy: 2 * xy)),
    shares=('unit of the coordinates', (), lambda r: everywhere(r, lambda xy: xy / [128, 96])),
    half_resolution=('unit of the coordinates', {'chance', 'axes', 'fixations of another image'}, lambda r: everywhere(r, lambda xy: xy / 2)),
    turned_by_exif=('rotated by its EXIF data', (), lambda r: with_orientation(files(r, 'images/train')[2], 6)),
    mirrored_by_exif=('rotated by its EXIF data', (), lambda r: with_orientation(files(r, 'images/val')[2], 2)),
    floats_of_unknown_range=('unreadable image', (), lambda r: other_pixels(files(r, 'images/train')[2], np.linspace(0, 200, 96 * 128, dtype=np.float32).reshape(96, 128), '.tif')),
    coloured_map=('unreadable map', (), lambda r: other_pixels(files(r, 'maps/train')[2], np.dstack([np.full((96, 128), v, np.uint8) for v in (200, 30, 30)]), '.png')),
    black_map=('empty map', (), lambda r: Image.new('L', (128, 96)).save(files(r, 'maps/train')[6])),
    graph_without_objects=('empty regions', (), lambda r: graphs(r, lambda g: next(iter(g.values())).update(objects={}))),
    flat_box=('region without area', (), lambda r: graphs(r, lambda g: first_object(g).update(h=0))),
    box_outside=('region outside the image', (), lambda r: graphs(r, lambda g: first_object(g).update(x=100, w=90))),
    unknown_name=('name without category', (), lambda r: graphs(r, lambda g: first_object(g).update(name='quetzalcoatlus'))),
    jpg_and_png=('same id twice', {'same picture twice'}, lambda r: Image.open(files(r, 'images/train')[0]).save(files(r, 'images/train')[0].with_suffix('.png'))),
    id_in_both_splits=('same id twice', {'map without image', 'fixations without image', 'image without fixations', 'image without map', 'image without regions', 'regions without image'}, lambda r: files(r, 'images/val')[0].rename(r/'images/val'/files(r, 'images/train')[0].name)),
    picture_twice=('same picture twice', {'fixations of another image'}, lambda r: shutil.copy(files(r, 'images/train')[0], files(r, 'images/train')[1])),
    picture_twice_in_another_format=('same picture twice', {'image without fixations', 'image without map', 'image without regions'}, lambda r: Image.open(files(r, 'images/train')[0]).save(r/'images/train/again.png')),
    leak=('picture in train and val', (), lambda r: shutil.copy(files(r, 'images/train')[0], files(r, 'images/val')[0])),
    fixations_twice=('same fixations twice', {'fixations of another image'}, lambda r: shutil.copy(files(r, 'fixations/train')[0], files(r, 'fixations/train')[1])),
    exchanged=('axes', {'fixation outside the image'}, lambda r: everywhere(r, lambda xy: xy[:, ::-1])),
    exchanged_and_clipped=('axes', {'same fixations twice'}, lambda r: everywhere(r, lambda xy: np.minimum(xy[:, ::-1], [128, 96]))),
    exchanged_without_maps=('axes', (), lambda r: (without_maps(r), everywhere(r, lambda xy: np.minimum(xy[:, ::-1], [128, 96])))),
    upside_down=('axes', (), lambda r: everywhere(r, lambda xy: np.clip([0, 97] + xy * [1, -1], 1, [128, 96]))),
    mirrored=('axes', (), lambda r: everywhere(r, lambda xy: np.clip([129, 0] + xy * [-1, 1], 1, [128, 96]))),
    passed_on=('fixations of another image', {'chance'}, lambda r: rotated(r, 'fixations/train')),
    all_passed_on=('chance', {'fixations of another image'}, lambda r: (rotated(r, 'fixations/train'), rotated(r, 'fixations/val'))),
    two_exchanged=('fixations of another image', (), lambda r: swap(*files(r, 'fixations/train')[:2])))
def other_pixels(path, pixels, ending): path.unlink(); Image.fromarray(pixels).save(path.with_suffix(ending))
def with_orientation(path, value):
    image = Image.open(path); exif = image.getexif(); exif[0x112] = value
    image.save(path, quality=95, exif=exif)
def swap(a, b): x, y = a.read_bytes(), b.read_bytes(); a.write_bytes(y); b.write_bytes(x)

@pytest.mark.parametrize('fault', FAULTS)
def test_planted_fault_is_found_and_named(world, tmp_path, fault):
    kind, along, plant = FAULTS[fault]
    shutil.copytree(world, tmp_path/'world'); plant(tmp_path/'world')
    checked = check_data(tmp_path/'world')
    s = checked.summary
    assert kind in s['errors'] | s['warnings'], s
    assert set(s['errors'] | s['warnings']) - {kind} <= set(along), s # and nothing that was not planted
    assert checked.usable == (not s['errors']) and kind in checked.sentence
    for k, level, image, sentence in checked.findings: assert sentence.endswith('.') and '\n' not in sentence and level == KINDS[k][0]

def test_every_kind_is_planted(): assert {kind for kind, *_ in FAULTS.values()} | {'left out by the reader'} == set(KINDS) # that one in the test below

def test_clean_world_gives_nothing(world, tmp_path):
    checked = check_data(world, tmp_path)
    assert checked.usable and not checked.findings and checked.summary['fit']['auc']['as given'] > .8
    without = shutil.copytree(world, tmp_path/'without', ignore=shutil.ignore_patterns('maps', 'scene_graphs.json'))
    assert not check_data(without).findings

@pytest.mark.parametrize('seed', range(1, 4))
def test_other_clean_worlds_give_nothing(tmp_path, seed):
    root = make_world(tmp_path/'world', n_images=40, size=(96, 128), seed=seed)
    assert not check_data(root).findings
    without_maps(root)
    assert not check_data(root).findings

class Page(HTMLParser):
    "Tags that are open, and how often each occurs."
    VOID = {'meta', 'image', 'circle', 'path', 'link', 'br', 'img'}
    def __init__(self): super().__init__(); self.open, self.count = [], {}
    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.VOID or tag == 'path' and not self.get_starttag_text().endswith('/>'): self.open.append(tag)
    def handle_startendtag(self, tag, attrs): self.count[tag] = self.count.get(tag, 0) + 1
    def handle_endtag(self, tag): assert self.open.pop() == tag, tag

def test_page_and_summary(world, tmp_path):
    shutil.copytree(world, tmp_path/'world')
    graphs(tmp_path/'world', lambda g: first_object(g).update(name='<script>alert(1)</script>'))
    checked = check_data(tmp_path/'world', tmp_path/'out', samples=5)
    text = (tmp_path/'out/index.html').read_text()
    page = Page(); page.feed(text)
    assert not page.open and page.count['section'] == 5 and page.count['svg'] == 15 and 'prefers-color-scheme:dark' in text
    shown = re.findall(r'<h3>(.+?)</h3>', text)
    f = checked.contents.fixations
    assert text.count('<circle') == f.image.isin(shown).sum() # every fixation of the samples is drawn
    assert '<script' not in text and not re.findall(r'(?:src|href)="(?!data:)', text) # hostile names are text, and nothing is loaded
    summary = json.loads((tmp_path/'out/summary.json').read_text())
    assert summary['usable'] and summary['warnings'] == {'name without category': 1} and summary['counts']['images train'] + summary['counts']['images val'] == 48
    assert pd.read_csv(tmp_path/'out/findings.csv').kind.tolist() == ['name without category']

def test_command(world, tmp_path, capsys):
    code = cli.main(['check-data', str(world), '--out', str(tmp_path/'a')]); out, err = capsys.readouterr()
    assert code == 0 and not err and 'nothing is wrong' in out and (tmp_path/'a/index.html').is_file()
    shutil.copytree(world, tmp_path/'world'); files(tmp_path/'world', 'maps/train')[0].unlink()
    assert cli.main(['check-data', str(tmp_path/'world'), '--out', str(tmp_path/'b')]) == 0 and 'image without map (1)' in capsys.readouterr().out
    assert cli.main(['check-data', str(tmp_path/'world'), '--out', str(tmp_path/'b'), '--strict']) == 1
    assert capsys.readouterr().err.startswith('saliency-nb: ')
    files(tmp_path/'world', 'images/train')[0].write_bytes(b'')
    code = cli.main(['check-data', str(tmp_path/'world'), '--out', str(tmp_path/'b')]); out, err = capsys.readouterr()
    assert code == 1 and len(err.strip().splitlines()) == 1 and 'unreadable image (1)' in err and json.loads((tmp_path/'b/summary.json').read_text())['usable'] is False
    for wrong in (tmp_path/'nowhere', tmp_path/'b'):
        assert cli.main(['check-data', str(wrong), '--out', str(tmp_path/'c')]) == 1 and len(capsys.readouterr().err.strip().splitlines()) == 1

def test_interrupt_stops_at_once(tmp_path):
    root = make_world(tmp_path/'world', n_images=40, size=(96, 128), seed=0)
    for split in ('train', 'val'): # many images, so that there is something to interrupt
        for p in files(root, f'images/{split}'):
            for k in range(100): os.symlink(p, root/f'images/{split}/copy{k}_{p.name}')
    script = "import sys; from saliency_nb import cli, contents; old = contents.parallel\ndef told(*a): print('started', flush=True); return old(*a)\ncontents.parallel = told; sys.exit(cli.main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, '-c', script, 'check-data', str(root), '--out', str(tmp_path/'out')], env=os.environ | dict(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while 'started' not in (line := process.stdout.readline()): assert line, process.stderr.read() # '': the command has ended
    time.sleep(.3); start = time.time(); process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and time.time() - start < 20 and len(err.strip().splitlines()) == 1 and not [*(tmp_path/'out').glob('*')], err # nothing is written

@pytest.fixture
def osie(tmp_path):
    if not (REAL/'stimuli').is_dir(): pytest.skip(f'OSIE is not at {REAL}')
    for name in ('stimuli', 'labels'):
        (tmp_path/'osie'/name).mkdir(parents=True)
        for p in sorted((REAL/name).iterdir())[:24]: os.symlink(p, tmp_path/'osie'/name/p.name)
    (tmp_path/'osie/eye').mkdir()
    mat = loadmat(REAL/'eye/fixations.mat'); savemat(tmp_path/'osie/eye/fixations.mat', dict(fixations=mat['fixations'][:24]))
    return tmp_path/'osie'

def replace(path, content): path.unlink(); path.write_bytes(content)
OSIE_FAULTS = dict(
    image_missing=('fixations without image', lambda r: files(r, 'stimuli')[0].unlink()), labels_missing=('image without regions', lambda r: files(r, 'labels')[0].unlink()),
    labels_of_nothing=('regions without image', lambda r: shutil.copy(files(r, 'labels')[0], r/'labels/9999.mat')), broken_labels=('unreadable regions', lambda r: replace(files(r, 'labels')[0], b'MATLAB')),
    labels_of_another_shape=('unreadable regions', lambda r: (files(r, 'labels')[0].unlink(), savemat(r/'labels/1001.mat', dict(data=np.zeros((12, 6, 8), np.uint8))))),
    nothing_marked=('empty regions', lambda r: (files(r, 'labels')[0].unlink(), savemat(r/'labels/1001.mat', dict(data=np.zeros((12, 600, 800), np.uint8))))),
    broken_image=('unreadable image', lambda r: replace(files(r, 'stimuli')[3], b'no')), broken_fixations=('unreadable fixations', lambda r: replace(r/'eye/fixations.mat', b'MATLAB')),
    wrong_size=('image of another size', lambda r: (files(r, 'stimuli')[0].unlink(), Image.new('RGB', (80, 60)).save(r/'stimuli/1001.jpg'))))

@pytest.mark.parametrize('fault', OSIE_FAULTS)
def test_fault_in_osie_is_found(osie, fault):
    kind, plant = OSIE_FAULTS[fault]; plant(osie)
    s = check_data(osie).summary
    assert kind in s['errors'] | s['warnings'], s

def test_real_osie_is_usable(tmp_path):
    if not (REAL/'stimuli').is_dir(): pytest.skip(f'OSIE is not at {REAL}')
    checked = check_data(REAL, tmp_path)
    print(f"\nOSIE: {checked.summary['seconds']} s; {checked.sentence}")
    assert checked.usable and checked.summary['counts']['fixations'] == 98321 and checked.summary['warnings'] == {'empty regions': 4}
    assert {i.split('/')[1] for *_, i, _ in checked.findings} == {'1029', '1488', '1541', '1652'}
    auc = checked.summary['fit']['auc']
    assert auc['as given'] == max(auc.values()) and auc['as given'] > checked.summary['fit']['auc_other_images'] + .03

def test_other_layouts_are_checked_through_their_readers(world, tmp_path):
    shutil.copytree(world/'images/val', tmp_path/'images'); table = pd.concat(observers(world/'fixations/val'), ignore_index=True)
    (tmp_path/'masks').mkdir()
    for image in table.image.unique():
        (tmp_path/'masks'/image).mkdir(); Image.fromarray(np.pad(np.full((40, 40), 255, np.uint8), 28)).resize((128, 96)).save(tmp_path/'masks'/image/'face.png')
    table.to_csv(tmp_path/'fixations.csv', index=False)
    clean = check_data(tmp_path)
    assert clean.usable and len(clean.contents.images) == 12 and clean.contents.regions.semantics == ['face'], clean.sentence
    broken, other = table.image.unique()[:2]
    table = table.astype({'x': object}); table.loc[table.image == broken, 'x'] = 'left'; table.to_csv(tmp_path/'fixations.csv', index=False)
    (tmp_path/'masks'/other/'face.png').write_bytes(b'no image')
    checked = check_data(tmp_path)
    found = [(kind, image) for kind, _, image, _ in checked.findings]
    assert not checked.usable and ('unreadable fixations', f'all/{broken}') in found and ('unreadable regions', f'all/{other}') in found

@pytest.mark.parametrize('looks', [[(64, 48)], [(64, 48), (64, 48)], [(64, 48), (20, 20)]], ids=['one', 'one spot', 'two'])
def test_few_equal_fixations_are_no_twins(looks, tmp_path):
    for name in 'ab': picture(tmp_path/f'images/{name}.png', (96, 128))
    pd.DataFrame([(i, *xy) for i in 'ab' for xy in looks], columns=['image', 'x', 'y']).to_csv(tmp_path/'fixations.csv', index=False)
    assert check_data(tmp_path).usable

@pytest.mark.parametrize('spots, reading, words', [(lambda g: g.uniform(0, 1.0586, (60, 2)), {}, 'unit of the coordinates'), (lambda g: g.uniform((0, 0), (96, 128), (60, 2)), {}, 'axes'),
                                                   (lambda g: g.uniform((0, 0), (60, 44), (60, 2)), {}, 'unit of the coordinates'), (lambda g: g.uniform((0, 0), (127, 95), (60, 2)), dict(sigma=9), '')],
                         ids=['shares', 'axes', 'half', 'right'])
def test_no_table_of_wrong_numbers_is_usable(spots, reading, words, tmp_path):
    for name in 'abc': picture(tmp_path/f'images/{name}.png', (96, 128))
    xy = spots(np.random.default_rng(0))
    pd.DataFrame(dict(image=['abc'[k % 3] for k in range(60)], x=xy[:, 0], y=xy[:, 1])).to_csv(tmp_path/'fixations.csv', index=False)
    checked = check_data(tmp_path, tmp_path/'page', reading=reading)
    assert checked.usable == (not words) and list(checked.summary['errors']) == ([words] if words else []) and (tmp_path/'page/index.html').is_file()
    assert words or checked.contents.sigma == 9

def observers(folder):
    "Fixations of a world's split, as tables."
    for p in sorted(folder.iterdir()):
        for k, g in enumerate(loadmat(p)['gaze'].ravel()):
            if len(g['fixations']): yield pd.DataFrame(g['fixations'] - .5, columns=['x', 'y']).assign(image=p.stem, observer=str(k))

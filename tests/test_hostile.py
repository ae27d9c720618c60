"Files of strangers: nothing in them runs, fetches, crashes or fills the disk; each is a named error."
import io, json, os, pickle, re, resource, sys, tarfile, zipfile
from collections import namedtuple
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from types import SimpleNamespace
import h5py, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch, xarray as xr
from nightly import NIGHTLY, noted
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.io import savemat
from scipy.sparse import coo_matrix, csc_matrix
from saliency_nb.bases import build_model, load_checkpoint, read_recipe, save_checkpoint
from saliency_nb.cli import main
from saliency_nb.core import (CheckpointError, DataError, JsonFile, ParameterError, SaliencyError,
                              read_arrays,
                              whole_file, write_arrays, write_json)
from saliency_nb.published import read_dissection
from saliency_nb.download import unpack
from saliency_nb.figures import truth_figure
from saliency_nb.pictures import load_map, load_rgb
from saliency_nb.fixation_readers import read_fixations
from saliency_nb.folders import recorded_parameters
from saliency_nb.matlab import guarded, read_mat
from saliency_nb.backbones import classifier
from saliency_nb.models import load_model, load_plugin, record_of
from saliency_nb.runs import html_report
from saliency_nb.outlines import segment_rle
from saliency_nb.region_readers import mask_pixels, read_regions
from saliency_nb.coco import segment_numbers
from saliency_nb.vocabulary import canonical, read_vocabulary
from saliency_nb.weights import load_tensors, read_tensors, read_weights
from saliency_nb.world import planted_weights

def sentence(error, path):
    "One line that names the file."
    said = str(error.value)
    assert str(path) in said and len(said.splitlines()) == 1 and len(said) < 400, said
    return said

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    model = build_model('dinet', backbone='squeezenet1_0', n_bases=4, width=8, phase=2)
    return save_checkpoint(model, tmp_path_factory.mktemp('model')/'model.safetensors')

def copied(checkpoint, path, recipe=None, **tensors):
    "A checkpoint with another recipe, or with other tensors."
    with safe_open(checkpoint, 'pt') as file: kept = file.metadata()['saliency_nb']
    metadata = dict(saliency_nb=kept if recipe is None else recipe)
    save_file(load_file(checkpoint) | tensors, path, metadata=metadata)
    return path

@pytest.mark.parametrize('number', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['bases.weight', 'readout.weight'])
def test_weights_that_are_no_numbers(checkpoint, tmp_path, number, name):
    tensor = load_file(checkpoint)[name].clone()
    tensor.view(-1)[0] = number
    path = copied(checkpoint, tmp_path/'broken.safetensors', **{name: tensor})
    with pytest.raises(CheckpointError, match='finite') as e: load_checkpoint(path)
    assert name in sentence(e, path)

FETCHING = dict(backbone='squeezenet1_0', width=8, weights='imagenet')
RECIPES = dict(weights_to_fetch=dict(options=FETCHING), words=dict(n_bases='four'), no_name=dict(host=3),
               bases_without_end=dict(n_bases=10**9), features_without_end=dict(options=dict(width=10**9)),
               no_options=dict(options=[1]))
TEXTS = dict(missing='{}', nested='[' * 100_000, torn='{"n_bases": 4')

@pytest.mark.parametrize('kind', [*RECIPES, *TEXTS])
def test_recipes_fetch_nothing_and_build_nothing_absurd(checkpoint, tmp_path, kind, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *a, **k: asked.append(a))
    with safe_open(checkpoint, 'pt') as file: own = json.loads(file.metadata()['saliency_nb'])
    recipe = TEXTS.get(kind) or json.dumps(own | RECIPES[kind])
    path = copied(checkpoint, tmp_path/'odd.safetensors', recipe)
    with pytest.raises(CheckpointError, match='how the model is built') as e: load_checkpoint(path)
    sentence(e, path)
    assert not asked

class Hostile:
    "Unpickled, it would leave a file behind."
    def __init__(self, target): self.target = target
    def __reduce__(self): return os.mkdir, (str(self.target),)

@pytest.mark.parametrize('hash_fits', [False, True], ids=['wrong hash', 'right hash'])
def test_cached_imagenet_weights_are_not_trusted(tmp_path, monkeypatch, hash_fits):
    "torchvision's cache holds a pickle: refused for its hash, and were that right, as more than weights."
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    held = pickle.dumps(Hostile(tmp_path/'done'))
    name = f'squeezenet1_0-{sha256(held).hexdigest()[:8] if hash_fits else "b66bff10"}.pth'
    chosen = SimpleNamespace(DEFAULT=SimpleNamespace(url=f'https://nowhere/{name}'))
    monkeypatch.setattr('torchvision.models.get_model_weights', lambda _: chosen)
    path = tmp_path/'hub/checkpoints'/name
    path.parent.mkdir(parents=True)
    path.write_bytes(held)
    with pytest.raises(CheckpointError) as e: classifier('squeezenet1_0', 'imagenet')
    assert ('plain file of weights' if hash_fits else 'hash') in sentence(e, path)
    assert not (tmp_path/'done').exists()

# Bombs: small files that would be large

@pytest.fixture(scope='module')
def png_bomb(tmp_path_factory):
    path = tmp_path_factory.mktemp('bomb')/'000000000001.png'
    Image.new('1', (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    return path

def test_pictures_without_end(png_bomb):
    for read in (mask_pixels, lambda p: segment_numbers(p, (480, 640))):
        with pytest.raises(DataError) as e: read(png_bomb)
        sentence(e, png_bomb)

def test_sparse_maps_without_end(tmp_path):
    from saliency_nb.pictures import map_points
    sparse = coo_matrix(([1.], ([3], [4])), shape=(200_000, 200_000))
    savemat(tmp_path/'map.mat', dict(fixLocs=sparse.tocsc()))
    with pytest.raises(ValueError, match='200000'): map_points(read_mat(tmp_path/'map.mat', 'fixLocs'))

def zip_bytes(**members):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items(): z.writestr(name, content)
    return memory.getvalue()

def bombs(path, kind):
    "Archives that unpack to 20 MB and more."
    zeros = bytes(20_000_000)
    if kind == 'zip': path.write_bytes(zip_bytes(zeros=zeros))
    inner = zip_bytes(zeros=zeros)
    if kind == 'zip in zip': path.write_bytes(zip_bytes(**{'a.zip': inner, 'b.zip': inner}))
    if kind == 'tar.gz':
        with tarfile.open(path, 'w:gz') as t:
            member = tarfile.TarInfo('zeros')
            member.size = len(zeros)
            t.addfile(member, io.BytesIO(zeros))

@pytest.mark.parametrize('kind', ['zip', 'zip in zip', 'tar.gz'])
def test_archives_without_end(tmp_path, kind):
    path = tmp_path/f"bomb.{kind.split(' ')[0]}"
    bombs(path, kind)
    with pytest.raises(DataError, match='do not trust') as e: unpack(path, tmp_path/'out')
    said = str(e.value)
    assert 'bomb' in said or 'zip' in said
    assert not [p for p in (tmp_path/'out').rglob('*') if p.is_file()]

@pytest.mark.parametrize('names', [['a', 'a/b'], ['a/', 'a'], ['x' * 400]], ids=['file', 'folder', 'long'])
def test_archives_whose_members_cannot_be_written(tmp_path, names):
    (tmp_path/'data.zip').write_bytes(zip_bytes(**dict.fromkeys(names, 'x')))
    archive, out = tmp_path/'data.zip', tmp_path/'out'
    with pytest.raises(DataError, match='not a readable archive') as e: unpack(archive, out)
    assert str(archive) in str(e.value) and not list(out.iterdir())

def test_archives_leave_alone_what_is_not_theirs(tmp_path):
    "What a killed unpacking left behind is no part of the archive, and a user's file of the same name stays."
    archive, out = tmp_path/'data.zip', tmp_path/'out'
    archive.write_bytes(zip_bytes(**{'notes.txt': 'theirs', 'images/a.txt': 'a'}))
    (out/'.data.zip.unpacking').mkdir(parents=True)
    (out/'.data.zip.unpacking/stale.txt').write_text('of another archive')
    names = [p.relative_to(out).as_posix() for p in unpack(archive, out)]
    assert sorted(names) == ['images/a.txt', 'notes.txt']
    unpack(archive, out) # the same files again are no fault
    (out/'notes.txt').write_text('mine')
    with pytest.raises(DataError, match='move it away') as e: unpack(archive, out)
    assert str(out/'notes.txt') in str(e.value) and (out/'notes.txt').read_text() == 'mine'

# MATLAB files, whose reader can crash

def gaze_file(path):
    gaze = np.zeros(3, [('location', object), ('fixations', object)])
    for k in range(3): gaze[k] = (np.ones((20, 2)), np.arange(10.).reshape(5, 2))
    savemat(path, dict(gaze=gaze, resolution=np.array([96, 128])))
    return path.read_bytes()

def test_damaged_matlab_files_are_sentences(tmp_path):
    "Damaged at random: some are read, some are not, some end their reader, and none ends this process."
    path = tmp_path/'gaze.mat'
    whole, refused = gaze_file(path), 0
    draws = 2_000 if NIGHTLY else 50
    g = np.random.default_rng(0)
    for _ in range(draws):
        damaged = bytearray(whole)
        for at in g.integers(128, len(whole), 8): damaged[at] = g.integers(256)
        path.write_bytes(bytes(damaged[:g.integers(200, len(whole))] if g.random() < .2 else damaged))
        try: read_mat(path)
        except DataError as e:
            refused += 1
            assert str(path) in str(e) and len(str(e).splitlines()) == 1
    assert refused > draws / 10
    path.write_bytes(whole)
    assert len(read_mat(path, 'gaze')) == 3

def test_an_interrupted_read_does_not_answer_the_next_question(tmp_path, monkeypatch):
    for name in ('one', 'two'): savemat(tmp_path/f'{name}.mat', {name: np.arange(3)})
    def interrupted(_): raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(pickle, 'load', interrupted)
        with pytest.raises(KeyboardInterrupt): read_mat(tmp_path/'one.mat')
    assert set(read_mat(tmp_path/'two.mat')) == {'two'}

def test_a_reader_that_dies_is_started_again(tmp_path):
    path = tmp_path/'gaze.mat'
    gaze_file(path)
    read_mat(path)
    guarded.process.kill()
    guarded.process.wait()
    assert len(read_mat(path, 'gaze')) == 3

def old_sparse(path, index):
    savemat(path, dict(fixLocs=csc_matrix(([1., 1.], ([3, 4], [2, 3])), shape=(48, 64))))
    rows = [np.array([3, k], 'int32').tobytes() for k in (4, index)]
    path.write_bytes(path.read_bytes().replace(*rows))

def new_sparse(path, index):
    with matlab73_file(path) as f:
        f['fixLocs/data'], f['fixLocs/ir'] = [1., 1.], np.array([3, index])
        f['fixLocs/jc'] = np.repeat([0, 1, 2], [3, 1, 61])
        f['fixLocs'].attrs['MATLAB_sparse'] = 48

@pytest.mark.parametrize('written', [old_sparse, new_sparse])
def test_sparse_maps_that_lead_out_of_memory(written, tmp_path):
    "scipy itself would end the process over them."
    written(tmp_path/'map.mat', 4)
    assert read_mat(tmp_path/'map.mat', 'fixLocs').toarray().sum() == 2
    written(tmp_path/'map.mat', 2**30)
    with pytest.raises(DataError, match='not a readable MATLAB file') as e: read_mat(tmp_path/'map.mat')
    sentence(e, tmp_path/'map.mat')

def endless(path):
    "What it refers to refers to itself."
    with matlab73_file(path) as f:
        f.create_dataset('gaze', (1, 1), h5py.ref_dtype)
        f['gaze'][0, 0] = f['gaze'].ref

def branching(path):
    "Each of forty cells holds the next one twice: a million million in the end."
    with matlab73_file(path) as f:
        last = f.create_dataset('#refs#/0', data=[[1.]])
        for k in range(40):
            last = f.create_dataset(f'#refs#/{k + 1}', data=[[last.ref] * 2], dtype=h5py.ref_dtype)
        f['gaze'] = last

def unwritten(path):
    "Zeros that nobody wrote: 80 GB."
    with matlab73_file(path) as f: f.create_dataset('gaze', (100_000, 100_000), 'f8', chunks=(100, 100))

@pytest.mark.parametrize('written', [endless, branching, unwritten])
def test_matlab_73_without_end(written, tmp_path, monkeypatch):
    monkeypatch.setattr(guarded, 'seconds', 2)
    if guarded.process: guarded.end()
    written(tmp_path/'map.mat')
    with pytest.raises(DataError, match='not a readable MATLAB file') as e: read_mat(tmp_path/'map.mat')
    sentence(e, tmp_path/'map.mat')
    guarded.end()

def test_hdf5_never_comes_to_this_process(tmp_path, monkeypatch):
    "It can crash over a damaged file, or read on for ever."
    readers = [pysaliency_reader(tmp_path/'a'), new_matlab_reader(tmp_path/'b')]
    monkeypatch.setattr(h5py, 'File', None)
    for reader in readers: assert len(reader.read(reader.path)) == 1

FAR = dict(segmentation=[[0, 0, 1e8, 0, 1e8, 1e8]], bbox=[0, 0, 1e8, 1e8])
FURTHER = dict(segmentation=[[0, 0, 1e308, 0, 10, 10]], bbox=[0, 0, 10, 10])

@pytest.mark.parametrize('drawn', [FAR, FURTHER], ids=['1e8', '1e308'])
def test_coco_coordinates_without_end(tmp_path, drawn):
    image = dict(id=1, file_name='a.jpg', height=96, width=128)
    annotation = dict(id=1, image_id=1, category_id=1, iscrowd=0, area=1) | drawn
    found = dict(images=[image], categories=[dict(id=1, name='dog')], annotations=[annotation])
    (tmp_path/'images').mkdir()
    Image.new('RGB', (128, 96)).save(tmp_path/'images/a.jpg')
    (tmp_path/'instances.json').write_text(json.dumps(found))
    with pytest.raises(DataError) as e:
        regions = read_regions(tmp_path/'instances.json', tmp_path/'images')
        regions.masks(regions.ids[0], (12, 16))
    sentence(e, tmp_path/'instances.json')

# Seeded damage

def damaged(whole, g):
    "Bytes flipped, cut off, repeated or, in texts, a number replaced by a huge one."
    content, kind = bytearray(whole), g.integers(4)
    span = len(whole) if g.random() < .5 else min(len(whole), 2_000) # headers are tried as often as contents
    at, length = g.integers(span), g.integers(1, 65)
    if kind == 1: return bytes(content[:at])
    if kind == 2:
        again = content[max(at - length, 0):at] * int(g.integers(1, 9))
        return bytes(content[:at] + again + content[at:])
    if kind == 3 and (numbers := list(re.finditer(rb'[0-9]+(?:\.[0-9]+)?', whole[:20_000]))):
        number = numbers[g.integers(len(numbers))]
        huge = HUGE[g.integers(len(HUGE))]
        return bytes(content[:number.start()] + huge + content[number.end():])
    for k in g.integers(span, size=g.integers(1, 9)): content[k] = g.integers(256)
    return bytes(content)

HUGE = (b'1e308', b'1e400', b'-1e308', b'9' * 400, b'9' * 5_000, b'2147483648', b'-1', b'0', b'NaN',
        b'1' + b'0' * 20, b'null', b'[]', b'""')

# JSON of any kind

NESTED = dict(lists='[' * 200_000 + ']' * 200_000, objects='{"a":' * 200_000 + '1' + '}' * 200_000,
    digits='9' * 5_000)
ANNOTATION = dict(image_id=1, category_id=1, iscrowd=0, area=1, id=1, bbox=[0, 0, 50, 50],
    segmentation=[[0, 0, 50, 0, 50, 50]])
COCO = dict(images=[dict(id=1, file_name='a.jpg', height=96, width=128)],
    categories=[dict(id=1, name='dog')], annotations=[ANNOTATION])
BOX = dict(x=1, y=2, w=30, h=40, attributes=['brown'], object_id=3)
GQA = dict(a=dict(width=128, height=96, objects={'7': dict(name='dog') | BOX}))
VG = [dict(image_id='a', objects=[dict(names=['dog'], synsets=['dog.n.01']) | BOX])]
GAZE = dict(images=[dict(id=1, file_name='a.jpg', height=96, width=128)],
            annotations=[dict(image_id=1, worker_id=k, fixations=[[10, 20], [30, 40]]) for k in range(3)])
SCANPATHS = [dict(name='a.jpg', subject=k, task='cup', condition='present', split='train', X=[800, 900, 850],
    Y=[500, 400, 450], T=[100, 200, 150]) for k in range(3)]

RUN = dict(parameters=dict(height=96, width=128, plugin=''), stages=dict(phase1=dict(inputs={})))

def masked(path):
    options = dict(min_images=1) if path.name == 'scene_graphs.json' else {}
    regions = read_regions(path, path.parent/'images', **options)
    return [regions.masks(i, (12, 16)) for i in regions.ids]

def in_folder(path, **options): return read_fixations(path.parent, **options)

JsonKind = namedtuple('JsonKind', 'name content read') # name of the file, what it holds, its reader

JSON = {
    'coco': JsonKind('instances.json', COCO, masked),
    'gqa': JsonKind('scene_graphs.json', GQA, masked),
    'vg': JsonKind('scene_graphs.json', VG, masked),
    'salicon': JsonKind('fixations_train.json', GAZE, partial(in_folder, split='train')),
    'scanpaths': JsonKind('scanpaths.json', SCANPATHS, in_folder),
    'run': JsonKind('run.json', RUN, lambda path: recorded_parameters(path.parent)),
    'vocabulary': JsonKind('coco_idx.json', dict(dog=1), lambda path: read_vocabulary(path.parent)),
    'authors': JsonKind('result.json', [dict(dog=.5)], read_dissection),
}

def beside(folder, name, content):
    "A file of JSON beside images/a.jpg."
    (folder/'images').mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (128, 96), 'grey').save(folder/'images/a.jpg')
    if name == 'coco_idx.json':
        for more in ('filtered_vg_obj.json', 'filtered_vg_attr.json'): (folder/more).write_text('{}')
    path = folder/name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path

@pytest.mark.parametrize('form', NESTED)
@pytest.mark.parametrize('kind', JSON)
def test_json_without_end(tmp_path, kind, form):
    "As the whole file, and in place of a value."
    deep, text = NESTED[form], json.dumps(JSON[kind].content)
    values = ('800',) if kind == 'scanpaths' else ('"dog"', '96')
    for value in values: text = text.replace(value, deep)
    for hostile in (deep, text):
        path = beside(tmp_path, JSON[kind].name, hostile)
        with pytest.raises(DataError) as e: JSON[kind].read(path)
        said = str(e.value)
        assert str(path.parent) in said and len(said) < 1_000 and len(said.splitlines()) == 1

def test_brackets_in_names_are_no_depth(tmp_path):
    "Names may hold what looks like depth, and what looks like the end of a text."
    names = ['[' * 3_000, '"[{' * 900, '\\', '\\"[' * 900, 'é[' * 900]
    path = beside(tmp_path, 'names.json', [{n: [n]} for n in names * 3])
    for ensure in (False, True):
        path.write_text(json.dumps([{n: [n]} for n in names * 3], ensure_ascii=ensure), encoding='utf-8')
        with JsonFile(path) as file: assert json.loads(file.read()) == [{n: [n]} for n in names * 3]

@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32'])
@pytest.mark.parametrize('kind', ['coco', 'gqa', 'vg'])
def test_a_byte_order_mark_is_no_fault(tmp_path, kind, encoding):
    path = beside(tmp_path, JSON[kind].name, JSON[kind].content)
    path.write_bytes(json.dumps(JSON[kind].content).encode(encoding))
    names = JSON[kind].read(path)[0][0]
    assert names == (['dog'] if kind == 'coco' else ['brown', 'dog'])

# Numbers without end

SIZES = ['1e308', '1e400', '-1e308', 'NaN', 'Infinity', '0', '-5', '1e15', '9' * 300]

@pytest.mark.parametrize('number', SIZES)
@pytest.mark.parametrize('kind', ['coco', 'salicon'])
def test_sizes_without_end(tmp_path, kind, number):
    "A height that no image has; pycocotools would end the process."
    text = json.dumps(JSON[kind].content)
    path = beside(tmp_path, JSON[kind].name, text.replace('"height": 96', f'"height": {number}'))
    with pytest.raises(DataError) as e: JSON[kind].read(path)
    sentence(e, path)

@pytest.mark.parametrize('number', SIZES)
@pytest.mark.parametrize('key', ['x', 'w'])
@pytest.mark.parametrize('kind', ['gqa', 'vg'])
def test_boxes_without_end(tmp_path, kind, key, number):
    "A box is cut at the border of its image, or refused."
    text = json.dumps(JSON[kind].content)
    path = beside(tmp_path, JSON[kind].name, text.replace(f'"{key}": {BOX[key]}', f'"{key}": {number}'))
    try: masks = JSON[kind].read(path)[0][1]
    except DataError as e: assert str(path) in str(e)
    else: assert masks.any()

def test_infinite_resolutions(tmp_path):
    "SALICON's .mat states the size of its image."
    for side in (np.inf, 1e308, -1., 1e15):
        root = tmp_path/str(side)
        (root/'images/train').mkdir(parents=True)
        (root/'fixations/train').mkdir(parents=True)
        Image.new('RGB', (128, 96)).save(root/'images/train/a.jpg')
        gaze_file(root/'fixations/train/a.mat')
        mat = read_mat(root/'fixations/train/a.mat')
        gaze, resolution = np.zeros(1, [('fixations', object)]), np.array([side, 128.])
        savemat(root/'fixations/train/a.mat', dict(gaze=gaze, resolution=resolution))
        assert len(mat['gaze']) == 3
        with pytest.raises(DataError) as e: read_fixations(root)
        assert 'a.mat' in sentence(e, root)

@pytest.mark.parametrize('segment', [
    [[0., 0] + [0., 90, 120, 90, 120, 0] * 9_000], [[0, 0, float('nan'), 0, 5, 5]],
    dict(size=[96, 128], counts='o' * 500),
    dict(size=[96, 128], counts='Z' * 9 + 'o'), dict(size=[96, 128], counts='\x7f' * 9),
    dict(size=[96, 128], counts=[1e308]),
    dict(size=[96, 128], counts=[None]), dict(size=[96, 128], counts={}), dict(size=5, counts=[1])],
    ids=['outline', 'nan', 'continued', 'torn', 'letters', 'large', 'none', 'object', 'size'])
def test_segments_that_would_harm_pycocotools(segment):
    with pytest.raises(ValueError): segment_rle(segment, (96, 128))

# Files of other kinds

HELD = dict(list=dict(state_dict=[1, 2]), lists=dict(state_dict=dict(a=[1])), tensor=torch.ones(3),
    numbers={1: torch.ones(1)},
            note=dict(state_dict=dict(a=torch.ones(1)), saliency_nb=[1]),
            callbacks=dict(state_dict=dict(a=torch.ones(1)), callbacks=[3]))

@pytest.mark.parametrize('kind', HELD)
def test_checkpoints_of_odd_contents(tmp_path, kind):
    path = tmp_path/'odd.pth'
    torch.save(HELD[kind], path)
    with pytest.raises(CheckpointError) as e: load_checkpoint(path)
    sentence(e, path)

PLUGINS = dict(syntax='def (', nul='\0', deep='(' * 5_000, leaves='import sys\nsys.exit(3)',
    lines='raise ValueError("a\\nb")',
               endless='def f(): f()\nf()', own='class E(BaseException): pass\nraise E')

@pytest.mark.parametrize('kind', PLUGINS)
def test_plugins_that_do_not_run(tmp_path, kind):
    path = tmp_path/'plugin.py'
    path.write_text(PLUGINS[kind])
    with pytest.raises(ParameterError, match='does not run') as e: load_plugin(path)
    sentence(e, path)

@pytest.mark.parametrize('command', ['explore', 'report', 'thresholds', 'predict', 'explain'])
def test_a_received_folder_runs_no_plugin(command, tmp_path, capsys):
    "Though its run.json names one."
    run, ran = tmp_path/'run', tmp_path/'ran'
    plugin = tmp_path/'plugin.py'
    plugin.write_text(f'open({str(ran)!r}, "w")')
    places = dict(plugin=str(plugin), data=str(tmp_path), out=str(run))
    parameters = places | dict(model='dinet', height=64, width=96)
    write_json(dict(parameters=parameters, stages={}), run/'run.json')
    (run/'alignment.nc').touch()
    pictures = [tmp_path, '--model', run, '--out', tmp_path/'out']
    asked = pictures if command in ('predict', 'explain') else [run]
    assert main([command, *map(str, asked)]) == 1
    assert 'if you trust it' in capsys.readouterr().err and not ran.exists()

PARTS = dict(parameters=[], stages=[3], places=dict(data=3))
STAGES = dict(number=3, sizes=dict(sizes=3), inputs=dict(inputs=[]))

@pytest.mark.parametrize('kind', [*PARTS, *STAGES])
def test_records_of_odd_contents(tmp_path, kind):
    whole = JSON['run'].content
    record = whole | {kind: PARTS[kind]} if kind in PARTS else whole | dict(stages=dict(phase1=STAGES[kind]))
    path = write_json(record, tmp_path/'run.json')
    for read in (record_of, recorded_parameters, load_model):
        with pytest.raises(DataError, match='not the record of a run') as e: read(tmp_path)
        sentence(e, path)

@pytest.mark.parametrize('known', [dict(height='x'), dict(height=float('inf')), dict(width=[3]),
    dict(height=None)], ids=str)
def test_records_of_odd_parameters(tmp_path, known):
    write_json(dict(parameters=dict(width=128) | known, stages={}), tmp_path/'run.json')
    for read in (recorded_parameters, load_model):
        with pytest.raises(DataError) as e: read(tmp_path)
        sentence(e, tmp_path/'run.json')

CELLS = dict(half='{"cells": [{"cell_type": "ma', empty='', nested='[' * 200_000, list='[]',
    number='{"cells": [3], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
             other='{"cells": [], "nbformat": 99, "nbformat_minor": 5, "metadata": {}}',
             lost='{"cells": [{}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}')

@pytest.mark.parametrize('kind', CELLS)
def test_half_written_notebooks(tmp_path, kind):
    path = tmp_path/'model.ipynb'
    path.write_text(CELLS[kind])
    with pytest.raises(DataError, match='not a whole notebook') as e: html_report(path)
    sentence(e, path)

@pytest.mark.parametrize('text', ['', 'semantic\ndog\n', 'a,b\n1,2\n', 'semantic,weight\ndog,much\n',
    'semantic,weight\ndog,1\ndog,2\n'])
def test_odd_tables_of_truth(tmp_path, text):
    path = tmp_path/'truth.csv'
    path.write_text(text)
    with pytest.raises(DataError) as e: planted_weights(path)
    sentence(e, path)

@pytest.mark.parametrize('shared', [1, 2])
def test_few_names_of_which_the_truth_is_known(shared):
    names = ['costs $5 or $6', '$\\frac{', 'dog']
    table = pd.DataFrame(dict(semantic=names, contrast=[.1, .2, .3], low=0., high=1., q_value=.5,
        category='other', n_images=20))
    figure = truth_figure(table, pd.Series(dict.fromkeys(names[:shared], 1.)))
    figure.canvas.draw()
    plt.close(figure)

def test_names_hold_no_control_characters():
    assert canonical('bell\x07ring\x00') == 'bell_ring' and canonical('half\ud800') == 'half'
    assert canonical('क्‍ष') == 'क्‍ष'

# Archives

def archived(path):
    "Three small files in an archive of any kind."
    kind = path.name.partition('.')[2]
    contents = {name: np.random.default_rng(ord(name)).bytes(600) for name in 'abc'}
    if kind == 'zip':
        path.write_bytes(zip_bytes(**contents))
        return
    with tarfile.open(path, dict(tar='w').get(kind, 'w:' + kind[4:])) as t:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            t.addfile(member, io.BytesIO(content))

def test_encrypted_archives(tmp_path):
    path = tmp_path/'data.zip'
    archived(path)
    marked = bytearray(path.read_bytes())
    for start, at in ((b'PK\3\4', 6), (b'PK\1\2', 8)): marked[marked.index(start) + at] |= 1
    path.write_bytes(marked)
    with pytest.raises(DataError, match='encrypted') as e: unpack(path, tmp_path/'out')
    sentence(e, path)

@pytest.mark.parametrize('kind', ['zip', 'tar', 'tar.gz', 'tar.bz2', 'tar.xz'])
def test_damaged_archives(tmp_path, kind):
    path, refused = tmp_path/f'data.{kind}', 0
    archived(path)
    whole = path.read_bytes()
    for k in range(60):
        path.write_bytes(damaged(whole, np.random.default_rng(k)))
        try: unpack(path, tmp_path/f'out{k}')
        except DataError as e:
            refused += 1
            assert len(str(e).splitlines()) == 1
    assert refused > (3 if kind == "tar" else 10) # a tar has no sums for its contents

# A full disk

@contextmanager
def full_disk():
    "No file may grow beyond 20 kB; none is compiled, or half of it would be kept."
    before, compiled = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try: yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = compiled

WRITERS = dict(text=lambda part: part.write_text('x' * 50_000),
    array=lambda part: np.save(part, np.ones(9_000)),
               safetensors=lambda part: save_file(dict(a=torch.ones(9_000)), part),
               torch=lambda part: torch.save(torch.ones(9_000), part),
               table=lambda part: pd.DataFrame(np.ones((9_000, 3))).to_csv(part),
               picture=lambda part: Image.fromarray(np.random.default_rng(0).integers(256, size=(200, 200),
               dtype=np.uint8)).save(part))

def test_a_full_disk_ends_no_process(tmp_path):
    "HDF5 itself would crash where its file cannot be written to its end."
    found = xr.Dataset(dict(a=('x', np.random.default_rng(0).random(9_000))))
    with full_disk(), pytest.raises(DataError, match='the disk is full') as e: write_arrays(found,
        tmp_path/'found.nc')
    sentence(e, tmp_path/'found.nc')
    assert not list(tmp_path.iterdir())

def test_damaged_results_never_reach_hdf5(tmp_path, monkeypatch):
    "It can crash over them, or read on for ever."
    found = xr.Dataset(dict(a=('x', np.random.default_rng(0).random(90))))
    path = write_arrays(found, tmp_path/'found.nc')
    assert read_arrays(path).equals(found)
    path.write_bytes(path.read_bytes().replace(b'\x89HDF', b'\x89HDG'))
    monkeypatch.setattr(h5py, 'File', None)
    with pytest.raises(DataError, match='not as it was written') as e: read_arrays(path)
    sentence(e, path)

@pytest.mark.parametrize('kind', WRITERS)
def test_a_full_disk_is_a_sentence(tmp_path, kind):
    "What was there stays, and nothing half-written is left."
    path = tmp_path/f'result.{dict(safetensors="safetensors", picture="png").get(kind, "npy")}'
    path.write_text('before')
    with full_disk(), pytest.raises(DataError, match='the disk is full') as e:
        with whole_file(path) as part: WRITERS[kind](part)
    sentence(e, path)
    assert path.read_text() == 'before' and list(tmp_path.iterdir()) == [path]

# Fuzzing: whatever damage, a reader reads or says what is wrong

@contextmanager
def matlab73_file(path):
    "Yields HDF5 that is given the head of a MATLAB 7.3 file."
    with h5py.File(path, 'w', userblock_size=512) as f: yield f
    with open(path, 'r+b') as f: f.write(b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\0\2IM')

class Reader:
    "A whole file, where it lies, and what reads it; damaged copies take its place."
    def __init__(self, path, read):
        self.path, self.read = path, read
        self.whole = path.read_bytes()

def picture_reader(folder, mode, ending, read):
    pixels = np.random.default_rng(0).integers(256, size=(96, 128, 3), dtype=np.uint8)
    path = folder/f'a{ending}'
    Image.fromarray(pixels).convert(mode).save(path)
    return Reader(path, read)

def json_reader(folder, kind):
    path = beside(folder, JSON[kind].name, JSON[kind].content)
    return Reader(path, JSON[kind].read)

def panoptic_reader(folder, damaged_part):
    parts = [dict(id=7, category_id=1), dict(id=300, category_id=1)]
    segments = dict(image_id=1, file_name='a.png', segments_info=parts)
    path = beside(folder, 'panoptic.json', COCO | dict(annotations=[segments]))
    (folder/'panoptic').mkdir()
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:50, :, 0], pixels[50:, :, :2] = 7, (44, 1)
    Image.fromarray(pixels).save(folder/'panoptic/a.png')
    return Reader(folder/'panoptic/a.png' if damaged_part == 'png' else path, lambda _: masked(path))

def table_reader(folder, encoding):
    beside(folder, 'unused', '')
    rows = [f'a,{k % 3},{k * 4}.5,{k * 3}.25,{k * 100},{90 + k}' for k in range(25)]
    text = '\n'.join(['image,observer,x,y,t,duration', *rows])
    (folder/'fixations.csv').write_text(text, encoding=encoding)
    return Reader(folder/'fixations.csv', in_folder)

def osie_reader(folder):
    (folder/'eye').mkdir(parents=True)
    (folder/'stimuli').mkdir()
    Image.new('RGB', (800, 600), 'grey').save(folder/'stimuli/1001.jpg')
    seen = np.zeros(3, [(k, object) for k in ('fix_x', 'fix_y', 'fix_duration')])
    for k in range(3): seen[k] = tuple(np.arange(5.) + 10 * k for _ in range(3))
    entry = np.zeros(1, [('img', object), ('subjects', object)])
    entry[0] = '1001.jpg', seen
    savemat(folder/'eye/fixations.mat', dict(fixations=entry))
    return Reader(folder/'eye/fixations.mat', lambda path: read_fixations(folder))

def salicon_reader(folder):
    for part in ('images/train', 'fixations/train'): (folder/part).mkdir(parents=True)
    Image.new('RGB', (128, 96), 'grey').save(folder/'images/train/a.jpg')
    gaze = np.zeros(3, [('location', object), ('fixations', object)])
    for k in range(3): gaze[k] = (np.ones((20, 2)), np.arange(1., 11).reshape(5, 2))
    savemat(folder/'fixations/train/a.mat', dict(gaze=gaze, resolution=np.array([96, 128])))
    return Reader(folder/'fixations/train/a.mat', lambda path: read_fixations(folder))

def new_matlab_reader(folder):
    "SALICON's layout with gaze in MATLAB 7.3."
    old = salicon_reader(folder)
    with matlab73_file(old.path) as f:
        held = [f.create_dataset(f'#refs#/{k}', data=np.arange(1., 11).reshape(2, 5)).ref for k in range(3)]
        f.create_dataset('gaze/fixations', data=np.array([held]).T, dtype=h5py.ref_dtype)
        f['gaze'].attrs['MATLAB_class'] = np.bytes_('struct')
        f['resolution'] = np.array([[96.], [128.]])
    return Reader(old.path, old.read)

def pysaliency_reader(folder, damaged_part='fixations'):
    "HDF5 of fixations, as pysaliency writes it."
    beside(folder, 'unused', '')
    with h5py.File(folder/'stimuli.hdf5', 'w') as f:
        f.attrs.update(type='FileStimuli', size=1)
        f['filenames'], f['shapes'] = np.array(['images/a.jpg'], 'S'), np.array([[96, 128, 3]])
    with h5py.File(folder/'fixations.hdf5', 'w') as f:
        f.attrs['type'] = 'Fixations'
        for k, v in dict(x=np.arange(20.), y=np.arange(20.), n=np.zeros(20, int), t=np.arange(20.),
            subject=np.arange(20) % 3).items(): f[k] = v
    return Reader(folder/f'{damaged_part}.hdf5', in_folder)

def safetensors_reader(folder):
    model = build_model('dinet', backbone='squeezenet1_0', n_bases=4, width=8, phase=2)
    def read(path):
        held = read_weights(path)
        read_recipe(held, path)
        return load_tensors(model, held, path)
    return Reader(save_checkpoint(model, folder/'model.safetensors'), read)

def pickled_reader(folder):
    torch.save(dict(state_dict=dict(a=torch.ones(30), b=torch.ones(3, 4))), folder/'model.pth')
    return Reader(folder/'model.pth', read_tensors)

def arrays_reader(folder):
    found = xr.Dataset(dict(iou=(('basis', 'semantic'), np.random.default_rng(0).random((4, 6))),
        count=('semantic', np.arange(6))),
                       dict(semantic=list('abcdef')), dict(tau=1.))
    return Reader(write_arrays(found, folder/'alignment.nc'), read_arrays)

READS = {f'image {ending}': partial(picture_reader, mode='RGB', ending=ending,
    read=load_rgb) for ending in ('.jpg', '.png', '.bmp', '.tif', '.webp')}
READS |= dict(mask=partial(picture_reader, mode='L', ending='.png', read=mask_pixels),
    map=partial(picture_reader, mode='L', ending='.png', read=load_map))
READS |= {f'json {kind}': partial(json_reader, kind=kind) for kind in JSON}
READS |= {f'panoptic {part}': partial(panoptic_reader, damaged_part=part) for part in ('png', 'json')}
READS |= {f'table {encoding}': partial(table_reader, encoding=encoding) for encoding in ('utf-8', 'utf-16')}
READS |= {'pysaliency stimuli': partial(pysaliency_reader, damaged_part='stimuli')}
READS |= {'matlab 7.3': new_matlab_reader}
READS |= dict(osie=osie_reader, salicon=salicon_reader, pysaliency=pysaliency_reader,
    safetensors=safetensors_reader, pickled=pickled_reader, arrays=arrays_reader)

@pytest.mark.parametrize('kind', READS)
def test_damaged_files_of_every_kind(tmp_path, kind):
    "Named errors only: one line, no process ended, no memory filled."
    reader, refused = READS[kind](tmp_path), 0
    reader.read(reader.path)
    draws = 2_000 if NIGHTLY else 50
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(draws):
        reader.path.write_bytes(damaged(reader.whole, np.random.default_rng([k, len(reader.whole)])))
        try: reader.read(reader.path)
        except SaliencyError as e:
            refused += 1
            assert '\n' not in str(e), e
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    noted(f'{kind}, damaged', files=draws, refused=refused, gigabytes=grown)
    assert refused and grown < 2

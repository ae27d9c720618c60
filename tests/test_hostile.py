"Files of strangers: nothing in them runs, fetches, crashes or fills the disk; each is a named error."
import io, json, os, pickle, tarfile, zipfile
from hashlib import sha256
from types import SimpleNamespace
import numpy as np, pytest, torch
from nightly import NIGHTLY
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.io import savemat
from scipy.sparse import coo_matrix
from saliency_nb.bases import build_model, load_checkpoint, save_checkpoint
from saliency_nb.core import CheckpointError, DataError
from saliency_nb.download import unpack
from saliency_nb.matlab import read_mat, read_old_mat
from saliency_nb.hosts import classifier
from saliency_nb.semantics import mask_pixels, read_regions, segment_numbers

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
    from saliency_nb.fixations import map_points
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
    whole, path, refused = gaze_file(tmp_path/'gaze.mat'), tmp_path/'gaze.mat', 0
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
    read_old_mat.process.kill()
    read_old_mat.process.wait()
    assert len(read_mat(path, 'gaze')) == 3

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

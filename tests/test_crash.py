"Killed, damaged, changed: what is made again, what is gone on from, and what stops with a sentence."
import json, os, shutil, subprocess, sys, tempfile
from pathlib import Path
import cv2, pytest, torch, xarray as xr
from saliency_nb import folders, vocabulary
from saliency_nb.bases import build_model, save_checkpoint
from saliency_nb.core import DataError, ParameterError, write_json
from saliency_nb.dissection import dissect
from saliency_nb.backbones import classifier
from saliency_nb.stages import Analysis
from saliency_nb.weights import write_tensors
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(height=64, width=96, features=4, n_bases=4, epochs=1, epochs2=1, batch=4, min_images=1, top=2)
TINY |= dict(accelerator='cpu', control=False)

def test_five_runs_are_killed_damaged_and_changed(tmp_path):
    "The whole campaign has thirty: `make crash`."
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    asked = [sys.executable, ROOT/'tests/crash.py', '--short', '--trials', '5', '--seed', '3']
    done = subprocess.run(asked, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("'trial'") == 5, done.stdout + done.stderr

@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A world, a plugin, weights, and a run of them up to its table; not to be changed."
    place = tmp_path_factory.mktemp('crash')
    make_world(place/'world', n_images=16, size=(64, 96), seed=0)
    torch.manual_seed(0)
    write_tensors(classifier('squeezenet1_0', None).state_dict(), place/'weights.safetensors')
    (place/'plugin.py').write_text('scale = 1\n')
    Analysis(**asked(place)).contributions()
    Analysis(**asked(place)).maps()
    return place

@pytest.fixture
def mine(project, tmp_path):
    "A copy of its own."
    shutil.copytree(project, tmp_path/'mine')
    return tmp_path/'mine'

def asked(place, **more):
    files = dict(data=place/'world', out=place/'run', probe=place/'world')
    return TINY | files | dict(weights=place/'weights.safetensors', plugin=place/'plugin.py') | more

def made(capsys, analysis, stage='contributions'):
    "Stages that are made for a result."
    capsys.readouterr()
    getattr(analysis, stage)()
    return {line.split(':')[0] for line in capsys.readouterr().out.splitlines() if ': made in' in line}

def other_weights(place):
    torch.manual_seed(1)
    write_tensors(classifier('squeezenet1_0', None).state_dict(), place/'weights.safetensors')

def other_plugin(place): (place/'plugin.py').write_text('scale = 2\n')

def other_training_image(place): inverted(min((place/'world/images/train').iterdir()))

def inverted(path): cv2.imwrite(str(path), 255 - cv2.imread(str(path)))

@pytest.mark.parametrize('change, sentence', [
    (other_weights, 'from other weights'),
    (other_plugin, 'with another plugin'),
    (other_training_image, 'on other images'),
], ids=lambda x: getattr(x, '__name__', ''))
def test_a_changed_input_of_a_training_stops_it(mine, change, sentence):
    change(mine)
    with pytest.raises(ParameterError, match=f'{sentence}.*--retrain'): Analysis(**asked(mine))

def other_probe(place, monkeypatch): inverted(min((place/'world/images/val').iterdir()))

def other_table(place, monkeypatch):
    shutil.copytree(vocabulary.TABLES, place/'tables')
    monkeypatch.setattr(vocabulary, 'TABLES', place/'tables')
    with open(place/'tables/synonyms.csv', 'a') as file: file.write('object,motorcar,car\n')

@pytest.mark.parametrize('change', [other_probe, other_table])
def test_a_changed_probe_makes_again_what_depends_on_it(mine, change, monkeypatch, capsys):
    change(mine, monkeypatch)
    assert made(capsys, Analysis(**asked(mine))) == {'dissection', 'contributions'}
    assert not made(capsys, Analysis(**asked(mine)))

def flipped(file):
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(whole[:half] + bytes(b ^ 255 for b in whole[half:half + 3]) + whole[half + 3:])

def deleted(file): file.unlink()

@pytest.mark.parametrize('harm, file, stage', [
    (flipped, 'alignment.nc', 'dissection'), (flipped, 'contributions.csv', 'contributions'),
    (deleted, 'usual.nc', 'thresholds'), (deleted, 'maps/scene_00012.png', 'maps'),
], ids=lambda x: getattr(x, '__name__', x))
def test_a_damaged_result_alone_is_made_again(mine, harm, file, stage, capsys):
    result = mine/'run'/file
    whole = result.read_bytes()
    harm(result)
    assert made(capsys, Analysis(**asked(mine)), stage) == {stage}
    if file.endswith('.nc'): assert xr.load_dataset(result).equals(xr.load_dataset(whole))
    else: assert result.read_bytes() == whole

@pytest.mark.parametrize('harm, file', [
    (flipped, 'phase1/best.safetensors'),
    (deleted, 'phase2/best.safetensors'),
    (deleted, 'phase1/metrics.csv'),
], ids=lambda x: getattr(x, '__name__', x))
def test_a_damaged_model_is_never_used(mine, harm, file, capsys):
    harm(mine/'run'/file)
    with pytest.raises(DataError, match=f'{file}: is not as it was written.*--retrain'):
        Analysis(**asked(mine)).contributions()
    again = made(capsys, Analysis(**asked(mine, retrain=True)))
    assert again == {file.split('/')[0]} # from the same start, so what depends on it is what it was

def test_versions_are_told_and_are_no_reason(mine, monkeypatch, capsys):
    now = folders.versions()
    monkeypatch.setattr(folders, 'versions', lambda: now | dict(torch='99.0', git='another'))
    analysis = Analysis(**asked(mine))
    assert not made(capsys, analysis)
    Analysis(**asked(mine)).contributions()
    told = capsys.readouterr().out
    assert told.count(f"with torch {now['torch']} (now 99.0)") == told.count('not made again') > 4
    assert 'git' not in told

# Checkpoints

def torn(file): file.write_bytes(file.read_bytes()[:1000])

def interrupted(run):
    "As if phase 1 had been killed after its last epoch."
    record = json.loads((run/'run.json').read_text())
    record['stages'] = dict(phase1=dict(inputs=record['stages']['phase1']['inputs'], begun='now'))
    write_json(record, run/'run.json')
    shutil.rmtree(run/'phase2')

@pytest.mark.parametrize('harm', [torn, flipped, deleted])
def test_a_damaged_checkpoint_starts_again(mine, harm, capsys):
    interrupted(mine/'run')
    weights = (mine/'run/phase1/best.safetensors').read_bytes()
    harm(mine/'run/phase1/last.ckpt')
    capsys.readouterr()
    Analysis(**asked(mine)).phase1()
    told = capsys.readouterr().out
    assert ('last.ckpt: is damaged' in told) == (harm != deleted) and 'phase 1, epoch 1/1' in told
    assert (mine/'run/phase1/best.safetensors').read_bytes() == weights

@pytest.mark.parametrize('file', ['best.safetensors', 'metrics.csv'])
@pytest.mark.parametrize('harm', [flipped, deleted])
def test_a_checkpoint_brings_back_what_was_kept(mine, harm, file, capsys):
    interrupted(mine/'run')
    whole = (mine/'run/phase1'/file).read_bytes()
    harm(mine/'run/phase1'/file)
    Analysis(**asked(mine)).phase1()
    assert 'epoch' not in capsys.readouterr().out # nothing was left to train
    assert (mine/'run/phase1'/file).read_bytes() == whole

def test_checkpoints_do_not_pass_through_another_file_system(project, tmp_path, monkeypatch):
    for name in ('world', 'weights.safetensors', 'plugin.py'): (tmp_path/name).symlink_to(project/name)
    monkeypatch.setattr(tempfile, 'mkstemp', None) # what Lightning would use
    Analysis(**asked(tmp_path)).phase1()
    assert (tmp_path/'run/phase1/last.ckpt').is_file()

# What is left, and for whom

@pytest.mark.parametrize('mask, mode', [(0o022, 0o644), (0o007, 0o660)], ids=oct)
def test_files_have_the_permissions_that_umask_gives(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        model = build_model('dinet', n_bases=2, backbone='squeezenet1_0', width=2)
        save_checkpoint(model, tmp_path/'model.safetensors')
        write_json({}, tmp_path/'table.json')
    finally: os.umask(before)
    assert {f.stat().st_mode & 0o777 for f in tmp_path.iterdir()} == {mode}

def test_all_files_of_a_run_have_the_same_permissions(project):
    files = [f for f in (project/'run').rglob('*') if f.is_file()]
    assert len(files) > 15 and len({f.stat().st_mode for f in files}) == 1

@pytest.mark.parametrize('name', ['alignment.nc', 'maps/scene_00012.png'])
def test_what_a_killed_process_was_writing_is_removed(name, mine):
    dead = subprocess.Popen(['true'])
    dead.wait()
    file = mine/'run'/name
    processes = dead.pid, os.getpid()
    left = [file.with_name(f'.{file.stem}.{process}-1.part{file.suffix}') for process in processes]
    for part in left: part.touch()
    deleted(mine/'run/usual.nc')
    Analysis(**asked(mine)).thresholds()
    assert [part.exists() for part in left] == [False, True] # a living one is still writing

def test_sums_of_another_picture_of_the_same_name_are_not_gone_on_from(mine):
    analysis = Analysis(**asked(mine))
    regions, thresholds = analysis.found.regions, analysis.thresholds()
    model = analysis.models()['phase 2']
    def dissected(folder): return dissect(model, regions, thresholds, analysis.size, folder=folder)
    first = dissected(mine/'sums')
    for image in regions.images.values(): inverted(image)
    other = dissected(mine/'sums')
    assert not first.contrast.equals(other.contrast) and other.equals(dissected(None))

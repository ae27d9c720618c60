"""The command line as a user meets it: broken data, kill -9, strangers' hosts, and papermill by hand.

Starting a process takes longer than what most commands do here, so one test of each kind starts real ones and the others call `main`."""
import io, json, os, shutil, signal, subprocess, sys, time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
import pandas as pd, pytest, torch
from PIL import Image
from safetensors.torch import load_file
import numpy as np
from scipy.io import savemat
from saliency_nb.bases import build_model, export_authors
from saliency_nb.chance import FEWEST
from saliency_nb.cli import given, main, parser
from saliency_nb.stages import Analysis
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1')
SMALL = ['--preset', 'tiny', '--height', '96', '--width', '128', '--features', '16', '--n-bases', '16', '--epochs', '3', '--epochs2', '1', '--accelerator', 'cpu']
DINET = ['--model', 'dinet', *SMALL]

def command(*arguments): return [sys.executable, '-m', 'saliency_nb.cli', *map(str, arguments)]
def process(*arguments): return subprocess.run(command(*arguments), env=ENV, capture_output=True, text=True, timeout=600)

def written(make):
    "What a function gives, with what it writes."
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err): code = make()
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

def done(*arguments):
    "A command in this process; a notebook has its own, as always."
    return written(lambda: main([str(a) for a in arguments]))

def every_stage(*arguments):
    "The stages of a run in the order of its notebook, without its figures."
    def make():
        args = parser().parse_args([str(a) for a in ('contributions', *arguments)])
        analysis = Analysis(**given(args, args.model, args.out))
        for stage in ('models', 'scores', 'calibration', 'thresholds', 'dissection', 'units', 'contributions', 'controls', 'people'): getattr(analysis, stage)()
        return 0
    return written(make)

@pytest.fixture(autouse=True)
def own_package(monkeypatch):
    "Kernels that are started import the package of this checkout."
    monkeypatch.setenv('PYTHONPATH', str(ROOT))

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('cli')/'world', n_images=48, size=(96, 128), seed=0)

def missing_images(root): shutil.rmtree(root/'images/train'); return 'images/train'
def corrupt_jpeg(root): p = sorted((root/'images/train').iterdir())[3]; p.write_bytes(p.read_bytes()[:900]); return p.name
def without_fixations(root):
    p = sorted((root/'fixations/train').iterdir())[2]
    savemat(p, dict(gaze=np.zeros(0, [('fixations', object)]), resolution=[96, 128])); return p.name
def missing_partner(root): p = sorted((root/'fixations/val').iterdir())[0]; p.unlink(); return p.name
def empty_graph(root): (root/'scene_graphs.json').write_text('{}'); return 'scene_graphs.json'
def truncated_json(root): p = root/'scene_graphs.json'; p.write_text(p.read_text()[:2000]); return 'scene_graphs.json'
def wrong_size(root): p = sorted((root/'images/val').iterdir())[1]; Image.new('RGB', (64, 64)).save(p); return p.name
def broken_mat(root): p = sorted((root/'fixations/train').iterdir())[5]; p.write_bytes(b'MATLAB 5.0'); return p.name

@pytest.mark.parametrize('harm', [missing_images, corrupt_jpeg, without_fixations, missing_partner, empty_graph, truncated_json, wrong_size, broken_mat], ids=lambda f: f.__name__)
def test_broken_data_is_one_sentence(world, tmp_path, harm, capsys):
    root = tmp_path/'world'; shutil.copytree(world, root)
    name = harm(root)
    code = main(['contributions', '--data', str(root), '--out', str(tmp_path/'run'), *DINET])
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert code == 1 and len(lines) == 1 and lines[0].startswith('saliency-nb: ') and name in lines[0] and lines[0].endswith('.'), said.err
    assert 'Traceback' not in said.out and not (tmp_path/'run/phase1').exists()

@pytest.mark.parametrize('arguments', [['--model', 'resnet'], ['--backbone', 'vgg'], ['--quantile', '1.5'], ['--weights', 'nowhere.pth'], ['--batch', '1000']], ids=lambda a: a[0])
def test_impossible_parameters_are_one_sentence(world, tmp_path, arguments, capsys):
    code = main(['contributions', '--data', str(world), '--out', str(tmp_path/'run'), *DINET, *arguments])
    said = capsys.readouterr()
    assert code == 1 and len(said.err.strip().splitlines()) == 1 and 'Traceback' not in said.out + said.err, said.err
    assert not (tmp_path/'run/phase1').exists()

def test_a_run_in_its_notebook_ends_in_one_sentence_too(world, tmp_path):
    "A fault of the data inside the kernel that papermill starts, in real processes."
    root = tmp_path/'world'; shutil.copytree(world, root)
    name = corrupt_jpeg(root)
    r = process('run', '--data', root, '--out', tmp_path/'run', *DINET)
    lines = r.stderr.strip().splitlines()
    assert r.returncode == 1 and len(lines) == 1 and lines[0].startswith('saliency-nb: ') and name in lines[0], r.stderr
    assert 'Traceback' not in r.stdout + r.stderr

def test_killed_run_goes_on_and_ends_the_same(world, tmp_path):
    whole = every_stage('--data', world, '--out', tmp_path/'whole', *DINET)
    assert whole.returncode == 0, whole.stderr
    victim = subprocess.Popen(command('run', '--data', world, '--out', tmp_path/'killed', *DINET), env=ENV, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in victim.stdout:
        if 'phase 1, epoch 2/3' in line: break
    os.killpg(victim.pid, signal.SIGKILL); victim.wait(); time.sleep(1)
    subprocess.run(['pkill', '-9', '-f', 'ipykernel_launcher.*' + str(victim.pid)], check=False)
    again = every_stage('--data', world, '--out', tmp_path/'killed', *DINET)
    assert again.returncode == 0, again.stderr
    assert 'phase 1, epoch 1/3' not in again.stdout, 'started from nothing'
    for phase in ('phase1', 'phase2'):
        a, b = (load_file(tmp_path/run/phase/'best.safetensors') for run in ('whole', 'killed'))
        assert max((a[k].double() - b[k].double()).abs().max().item() for k in a) < 1e-6
    assert pd.read_csv(tmp_path/'whole/contributions.csv').round(4).equals(pd.read_csv(tmp_path/'killed/contributions.csv').round(4))
    third = every_stage('--data', world, '--out', tmp_path/'killed', *DINET)
    assert third.stdout.count('not made again') == 10, third.stdout # every stage
    other = every_stage('--data', world, '--out', tmp_path/'killed', *DINET, '--quantile', '0.9')
    assert other.stdout.count('not made again') == 6, other.stdout # training, scores, calibration, people and units are unchanged, thresholds and what follows are not

def test_control_on_the_fixations_of_other_images(world, tmp_path):
    r = done('run', '--data', world, '--out', tmp_path/'run', *DINET, '--epochs', '1', '--shuffled', 'true')
    assert r.returncode == 0, r.stderr
    summary, kept = json.loads((tmp_path/'run/summary.json').read_text()), {f.name for f in (tmp_path/'run/controls').iterdir()}
    assert kept == {'untrained.nc', 'shuffled.nc', 'shuffled', 'untrained_adjusted.nc', 'shuffled_adjusted.nc'} and summary['shuffled'].keys() == summary['untrained'].keys() == summary['spearman'].keys()
    record = json.loads((tmp_path/'run/run.json').read_text())
    assert record['parameters']['epochs'] == 1 and record['versions']['torch'] == torch.__version__.split('+')[0]
    assert set(record['stages']) >= {'phase1', 'phase2', 'scores', 'calibration', 'thresholds', 'dissection', 'contributions', 'people', 'units'}
    marked = pd.read_csv(tmp_path/'run/controls.csv').fillna(dict(not_beaten=''))
    assert {c: int((t.not_beaten != '').sum()) for c, t in marked.groupby('claim')} == summary['not_beaten'] and {'untrained', 'shuffled', 'position', 'random names'} <= set(marked)
    assert pd.read_csv(tmp_path/'run/people.csv').n_images.gt(0).all() and {'people.png', 'controls.png', 'controls_adjusted.png', 'explained.png', 'categories.png'} <= {f.name for f in (tmp_path/'run/figures').iterdir()}
    shown = (tmp_path/'run/model.html').read_text()
    assert 'what follows is descriptive' in shown and summary['units']['open'] is False and len(pd.read_csv(tmp_path/'run/units.csv')) # hardly trained: the gate is shut
    assert 'claims beat all controls' in shown and 'times as dense as people' in shown or 'No thing is over- or under-weighted' in shown

PLUGIN = '''import torchvision
from torch import nn
from saliency_nb.hosts import register_host

class Lraspp(nn.Module): # a segmentation network this project knows nothing about
    dim = 960
    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).backbone
    def forward(self, images): return self.backbone(images)['high']

register_host('lraspp', Lraspp)
'''
FAST = [*SMALL, '--epochs', '1', '--control', 'false']

def test_a_strangers_host_in_ten_lines(world, tmp_path):
    (tmp_path/'my_hosts.py').write_text(PLUGIN)
    r = every_stage('--model', 'lraspp', '--plugin', tmp_path/'my_hosts.py', '--data', world, '--out', tmp_path/'run', *FAST)
    assert r.returncode == 0, r.stderr
    table = pd.read_csv(tmp_path/'run/contributions.csv')
    assert len(table) > 5 and table[['contribution', 'contrast']].notna().all(axis=None)
    assert table.low[table.n_images < FEWEST].isna().all() # of few images nothing is certain
    r = process('contributions', '--model', 'lraspp', '--data', world, '--out', tmp_path/'other', *FAST)
    assert r.returncode == 1 and 'register_host' in r.stderr and 'Traceback' not in r.stderr

def test_models_side_by_side(world, tmp_path):
    r = done('run', '--model', 'salicon', 'transalnet', '--data', world, '--out', tmp_path, *FAST)
    assert r.returncode == 0, r.stderr
    pages = [line.removeprefix('report: ') for line in r.stdout.splitlines() if line.startswith('report: ')]
    assert [Path(p).relative_to(tmp_path).as_posix() for p in pages] == ['salicon/model.html', 'transalnet/model.html', 'compare_models.html'] and all(Path(p).is_file() for p in pages)
    shown = Path(pages[-1]).read_text()
    assert all(name in shown for name in ('salicon', 'transalnet', 'information_gain', 'Spearman'))
    missing = done('compare', tmp_path/'salicon', tmp_path/'nowhere', '--out', tmp_path/'three')
    assert missing.returncode == 1 and len(missing.stderr.strip().splitlines()) == 1 and 'nowhere' in missing.stderr
    alone = done('compare', tmp_path/'salicon', '--out', tmp_path/'alone')
    assert alone.returncode == 0, alone.stderr
    assert 'two halves of the observers' in (tmp_path/'alone/compare_models.html').read_text() # beside people

def test_stages_one_by_one_from_folders_kept_apart(world, tmp_path):
    for name in ('images', 'fixations', 'maps'): shutil.copytree(world/name, tmp_path/'elsewhere'/name)
    shutil.copy(world/'scene_graphs.json', tmp_path/'graphs.json')
    parts = [a for name in ('images', 'fixations', 'maps') for a in (f'--{name}', tmp_path/'elsewhere'/name)]
    options = [*parts, '--scene-graphs', tmp_path/'graphs.json', '--out', tmp_path/'run', *DINET, '--epochs', '1', '--lr', '1e-3']
    for command_name, file, made_before in (('train', 'phase2/best.safetensors', 0), ('thresholds', 'thresholds.nc', 2), ('dissect', 'alignment.nc', 3), ('contributions', 'contributions.csv', 5)):
        r = done(command_name, *options)
        assert r.returncode == 0 and (tmp_path/'run'/file).is_file() and r.stdout.count('not made again') == made_before, r.stderr + r.stdout
    r = done('train', *options, '--out', tmp_path/'other', '--phase', '0', '--keep', '0,1', '--accumulate', '2', '--patience', '1', '--clip', '1')
    assert r.returncode == 0 and {f.name for f in (tmp_path/'other/original').glob('*.safetensors')} == {'best.safetensors', 'epoch_000.safetensors', 'epoch_001.safetensors'}, r.stderr
    r = done('train', *options, '--keep', 'last')
    assert r.returncode == 1 and 'epochs' in r.stderr and 'Traceback' not in r.stderr
    r = done('train', *options, '--data', world)
    assert r.returncode == 1 and 'either' in r.stderr and 'Traceback' not in r.stderr

def test_authors_checkpoint_probed_elsewhere(world, tmp_path):
    torch.manual_seed(0)
    export_authors(build_model('dinet', n_bases=16, width=16, phase=2), tmp_path/'model_best.pth')
    shutil.copytree(world, tmp_path/'unnamed', ignore=shutil.ignore_patterns('scene_graphs.json', 'truth.csv'))
    given = ['--data', tmp_path/'unnamed', '--out', tmp_path/'run', '--checkpoint', tmp_path/'model_best.pth', *DINET, '--height', '64', '--width', '96']
    r = done('contributions', *given)
    assert r.returncode == 1 and '--probe' in r.stderr and 'Traceback' not in r.stderr, r.stderr
    r = every_stage(*given, '--probe', world, '--control', 'false') # an untrained ResNet-50 would take as long as all the rest
    assert r.returncode == 0 and len(pd.read_csv(tmp_path/'run/contributions.csv')) > 5, r.stderr
    assert len(pd.read_csv(tmp_path/'run/people.csv')) # the same pictures in another folder
    assert not (tmp_path/'run/phase2/metrics.csv').exists()

@pytest.mark.parametrize('asked, policy', [(None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_threads_that_wait_sleep(asked, policy, monkeypatch, capsys):
    "Else a busy machine takes many times as long; what the user has set stays."
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    if asked: monkeypatch.setenv('OMP_WAIT_POLICY', asked)
    assert main(['models']) == 0 and os.environ['OMP_WAIT_POLICY'] == policy

@pytest.mark.parametrize('more', [['--n-images', '9' * 12], ['--size', '99999999', '99999999']], ids=str)
def test_too_little_memory_is_one_sentence(more, tmp_path, capsys):
    assert main(['world', str(tmp_path/'world'), *more]) == 1
    assert 'not enough memory' in capsys.readouterr().err

WITHOUT_A_LIBRARY = [ # arguments, what is said
    (['run', '--epcohs', '3'], 'did you mean --epochs'),
    (['run', *'--data DATA --out OUT --epochs three'.split()], 'give a whole number'),
    (['train', *'--data DATA --out OUT --lenient perhaps'.split()], 'give true or false'),
    (['train', *'--data DATA --out OUT --precision fp16'.split()], 'give one of'),
    (['run', *'--data DATA --out OUT --lr -1'.split()], 'above 0'),
    (['run', *'--data DATA --out OUT --model dinett'.split()], 'did you mean dinet'),
    (['run', *'--data DATA --out OUT --seeds 1'.split()], 'two trainings or more'),
    (['run', *'--data DATA --out OUT --seeds 2 --checkpoint FILE'.split()], 'would be the same'),
    (['run', *'--data DATA --out OUT --shuffled true --checkpoint FILE'.split()], 'shuffled'),
    (['run', *'--data DATA --out OUT --keep last'.split()], 'numbers of epochs'),
    (['run', *'--data DATA --out OUT --reading origin'.split()], 'KEY=VALUE'),
    (['dissect', *'--data DATA --out OUT --probe nowhere'.split()], 'nowhere: no such file or folder'),
    (['run', *'--data nowhere --out OUT'.split()], 'nowhere: no such folder'),
    (['run', *'--data DATA --images DATA --out OUT'.split()], 'either --data FOLDER'),
    (['run', *'--data DATA --out OUT --checkpoint nowhere.pth'.split()], 'nowhere.pth: no such file'),
    (['run', *'--data DATA --out OUT --model mine --plugin nowhere.py'.split()], 'nowhere.py: no such file'),
    (['run', '--data', 'DATA'], '--out'),
    (['fit', *'FILE --data DATA --out OUT --n-bases many'.split()], 'give a whole number'),
    (['world', *'OUT --n-images 1'.split()], '4 or more'),
    (['check-data', *'nowhere --out OUT'.split()], 'nowhere: no such folder'),
    (['predict', *'nowhere.jpg --out OUT'.split()], 'nowhere.jpg'),
    (['explain', *'FILE --out OUT --at 1,2 --box 1,2,3,4'.split()], 'not both'),
    (['score', *'nowhere --data DATA'.split()], 'nowhere: no such folder'),
    (['people', *'DATA --out OUT --reading sigma=wide'.split()], 'sigma'),
    (['compare', *'DATA DATA --out OUT'.split()], 'is no run folder'),
]
TELL = """import io, json, sys
from contextlib import redirect_stderr
from saliency_nb.cli import main
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with redirect_stderr(said): code = main(arguments)
    print(json.dumps([code, said.getvalue(), 'torch' in sys.modules]))
"""

@pytest.mark.parametrize('wrong', [WITHOUT_A_LIBRARY[::2], WITHOUT_A_LIBRARY[1::2]], ids=len)
def test_what_needs_no_library_is_said_before_one_is_loaded(wrong, tmp_path):
    "A wrong value is answered at once; the seconds that torch takes come after."
    for name in ('DATA', 'OUT'): (tmp_path/name).mkdir()
    (tmp_path/'FILE').touch()
    asked = json.dumps([arguments for arguments, _ in wrong])
    how = dict(cwd=tmp_path, env=ENV, capture_output=True, text=True)
    told = subprocess.run([sys.executable, '-c', TELL, asked], **how)
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(lines) == len(wrong), told.stderr
    for (arguments, wanted), (code, said, loaded) in zip(wrong, lines):
        assert code == 1 and wanted in said and len(said.splitlines()) == 1, (arguments, said)
        assert not loaded, arguments

"A trained model is precious: what makes it again, what does not, and what a command needs to be told."

import ast, json, os, shlex, shutil, signal, subprocess, sys, time
from collections import namedtuple
from pathlib import Path
import nbformat, pandas as pd, pytest
from notebooks import in_this_process  # noqa: F401 - a fixture
from saliency_nb import checks, cli, core, folders, phases, runs, training
from saliency_nb.bases import build_model, save_checkpoint
from saliency_nb.core import ParameterError
from saliency_nb.stages import Analysis
from saliency_nb.declared import analysis_path
from saliency_nb.folders import recorded_parameters
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(height=64, width=96, features=4, n_bases=4, epochs=1, epochs2=1, batch=4, control=False,
            min_images=1, top=2, accelerator='cpu')
OPTIONS = ['--preset', 'tiny', '--model', 'dinet', *[f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]]
Done = namedtuple('Done', 'code out err')


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('kept') / 'world', n_images=16, size=(64, 96), seed=0)


@pytest.fixture(scope='module')
def trained(world):
    "A project: data, and a run trained on them; not to be changed."
    assert cli.main(['train', '--data', str(world), '--out', str(world.parent / 'runs/a'), *OPTIONS]) == 0
    return world.parent / 'runs/a'


@pytest.fixture
def project(trained, tmp_path):
    "A copy of its own."
    shutil.copytree(trained.parent.parent, tmp_path / 'project')
    return tmp_path / 'project'


@pytest.fixture
def untrained(monkeypatch):
    "Nothing may be trained."

    def trained(*args, **options):
        raise AssertionError('trained')

    monkeypatch.setattr(phases, 'train', trained)


def said(capsys, *arguments):
    "Exit code, and what a command says on stdout and stderr."
    capsys.readouterr()
    code = cli.main([str(a) for a in arguments])
    return Done(code, *capsys.readouterr())


def one_sentence(done, *words):
    "Assert that a command failed with one sentence that holds these words."
    assert done.code == 1 and len(done.err.strip().splitlines()) == 1, done.err
    for word in words:
        assert word in done.err, done.err


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


@pytest.mark.parametrize(
    'command, options, sentence',
    [
        ('thresholds', ['--height', '96'], 'height 64 (asked: 96)'),
        ('run', ['--epochs', '2', '--lr', '.1'], 'epochs 1 (asked: 2)'),
        ('thresholds', ['--model', 'salicon'], 'model dinet (asked: salicon)'),
        ('run', ['--epochs2', '3'], 'epochs2 1 (asked: 3)'),
        ('train', ['--preset', 'light'], 'asked'),
    ],
    ids=str,
)
def test_other_options_do_not_replace_a_model(command, options, sentence, trained, capsys, untrained):
    before = contents(trained)
    if command == 'run':
        done = analysed(capsys, trained, *options)
    else:
        done = said(capsys, command, trained, *options)
    one_sentence(done, sentence, '--retrain', '--out')
    assert contents(trained) == before


def analysed(capsys, run, *options):
    "What `run` does first, without the process of its notebook."
    args = cli.parser().parse_args(['run', str(run), *options])
    try:
        Analysis(**cli.given(args, args.model[0], cli.named_run(args)))
    except ParameterError as e:
        return Done(1, '', f'{e}\n')
    return Done(0, *capsys.readouterr())


def test_other_data_do_not_replace_a_model(trained, tmp_path, capsys, untrained):
    other = make_world(tmp_path / 'other', n_images=16, size=(64, 96), seed=1)
    before = contents(trained)
    done = said(capsys, 'train', trained, '--data', other)
    assert done.code == 1 and 'on other images or fixations' in done.err and contents(trained) == before


def test_retrain_does_it_and_is_meant_once(project, capsys):
    run = project / 'runs/a'
    weights = (run / 'phase1/best.safetensors').read_bytes()
    assert said(capsys, 'train', run, '--seed', 1, '--retrain')[0] == 0
    assert (run / 'phase1/best.safetensors').read_bytes() != weights
    record = json.loads((run / 'run.json').read_text())
    assert record['parameters']['seed'] == 1 and 'retrain' not in record['parameters']
    done = said(capsys, 'train', run, '--retrain')
    assert done.code == 0 and done.out.count('not made again') == 2  # nothing is stale


@pytest.fixture
def edited(monkeypatch):
    "The code of a chapter is not what it was."
    before = folders.fingerprint_code
    monkeypatch.setattr(folders, 'fingerprint_code', lambda *modules: before(*modules) + 'edited')


def test_an_edit_of_the_code_is_no_reason_to_train(project, capsys, edited, untrained):
    done = said(capsys, 'thresholds', project / 'runs/a')
    assert done.code == 0 and 'thresholds: made' in done.out, done.err
    assert done.out.count('with an earlier version of the code') == 2


def test_retrain_uses_the_code_of_today(project, capsys, edited):
    done = said(capsys, 'train', project / 'runs/a', '--retrain')
    assert done.code == 0 and done.out.count('made in') == 2 and 'epoch 1/1' in done.out, done.out + done.err


def test_the_probe_is_no_input_of_the_training(project, tmp_path, capsys, untrained):
    other = make_world(tmp_path / 'other', n_images=16, size=(64, 96), seed=1)
    options = ['--probe', str(other), '--min-images', '2', '--top', '1']
    args = cli.parser().parse_args(['dissect', str(project / 'runs/a'), *options])
    analysis = Analysis(**cli.given(args, args.model, cli.named_run(args)))
    assert analysis.phase2() and capsys.readouterr().out.count('not made again') == 2
    assert set(map(Path, analysis.found.regions.images.values())) <= set(other.rglob('*.jpg'))
    assert recorded_parameters(project / 'runs/a')['probe'] == str(other)  # the next command knows it


@pytest.mark.parametrize('batch', [2, 9999])
def test_after_training_another_batch_is_allowed(batch, project, capsys, untrained):
    "It is that of the training and stays so in run.json; a training does not take another one."
    run = project / 'runs/a'
    code, out, err = said(capsys, 'dissect', run, '--batch', batch, '--min-images', 1)
    assert code == 0 and out.count('not made again') == 2 and (run / 'alignment.nc').is_file(), err
    assert recorded_parameters(run)['batch'] == 4
    code, _, err = said(capsys, 'train', run, '--batch', batch)
    assert code == 1 and f'batch 4 (asked: {batch})' in err or batch == 9999 and 'training images' in err, err
    code, out, _ = said(capsys, 'dissect', run)
    assert code == 0 and out.count('not made again') == 5


def test_more_names_per_basis_than_there_are_is_all_of_them(project, capsys, untrained):
    tables = []
    for top in (99, 999):
        code, _, err = said(capsys, 'contributions', project / 'runs/a', '--top', top)
        assert code == 0, err
        tables.append((project / 'runs/a/contributions.csv').read_text())
    assert tables[0] == tables[1]


def test_a_stage_needs_the_run_folder_only(project, capsys, untrained, monkeypatch):
    "And a project may move: data and run together, the run alone, the data alone."
    moved = shutil.move(project, project.parent / 'moved')
    shutil.move(moved / 'runs', moved / 'results')
    monkeypatch.chdir(project.parent)
    done = said(capsys, 'thresholds', 'moved/results/a')
    assert done.code == 0 and (moved / 'results/a/thresholds.nc').is_file(), done.err
    shutil.move(moved / 'world', project.parent / 'elsewhere')
    done = said(capsys, 'thresholds', 'moved/results/a', '--data', 'elsewhere')
    assert done.code == 0 and done.out.count('not made again') == 3, done.err
    done = said(capsys, 'thresholds', 'moved/results/a')
    assert done.code == 0 and done.out.count('not made again') == 3, done.err  # from now on it is known


def test_data_that_are_gone_are_one_sentence(project, capsys, untrained):
    record = json.loads((project / 'runs/a/run.json').read_text())
    record['parameters']['data'], record['places']['data'] = '/nowhere/data', '../../nowhere'
    (project / 'runs/a/run.json').write_text(json.dumps(record))
    done = said(capsys, 'dissect', project / 'runs/a')
    one_sentence(done, '/nowhere/data', '--data')


def test_another_run_with_the_same_settings(trained, tmp_path, capsys):
    done = said(
        capsys, 'train', '--config', trained / 'run.json', '--out', tmp_path / 'b', '--seed', 1
    )
    assert done.code == 0, done.err
    first, second = recorded_parameters(trained), recorded_parameters(tmp_path / 'b')
    assert {k for k in first if first[k] != second[k]} == {'out', 'seed'}


@pytest.mark.parametrize(
    'arguments, word',
    [
        (['thresholds'], '--out'),
        (['thresholds', 'RUN', '--out', 'elsewhere'], '--config'),
        (['thresholds', 'nowhere'], 'nowhere'),
        (['thresholds', '--config', 'nowhere', '--out', 'b'], 'nowhere'),
        (['thresholds', '--out', 'b'], '--data'),
    ],
    ids=' '.join,
)
def test_what_is_not_said_is_asked_for(arguments, word, trained, tmp_path, capsys, monkeypatch, untrained):
    monkeypatch.chdir(tmp_path)
    done = said(capsys, *[trained if a == 'RUN' else a for a in arguments])
    one_sentence(done, word)


@pytest.mark.parametrize(
    'options',
    [['--probe', 'nowhere'], ['--quantile', '2'], ['--data', 'nowhere']],
    ids=lambda o: o[0],
)
def test_a_command_that_fails_leaves_the_record_alone(
    options, trained, tmp_path, capsys, monkeypatch, untrained
):
    monkeypatch.chdir(tmp_path)
    before = contents(trained)
    done = said(capsys, 'dissect', trained, *options)
    one_sentence(done)
    assert contents(trained) == before


class Stopped(Exception):
    "Somebody pulled the plug."


def test_a_training_that_was_interrupted_is_a_model_too(world, tmp_path, capsys, monkeypatch):
    settings = dict(data=world, out=tmp_path / 'run') | TINY | dict(epochs=3)
    lines = []

    def stop(line):
        lines.append(line)
        if 'epoch 2/3' in line:
            raise Stopped

    monkeypatch.setattr('builtins.print', stop)
    with pytest.raises(Stopped):
        Analysis(names=False, **settings).phase1()
    with pytest.raises(ParameterError, match='lr 0.001 .asked: 0.1.'):
        Analysis(names=False, **settings | dict(lr=0.1))
    monkeypatch.setattr('builtins.print', lines.append)
    lines.clear()
    Analysis(names=False, **settings).phase1()
    assert 'phase1: goes on' in lines[0] and not any('epoch 1/3' in line for line in lines), lines


def test_a_model_that_nobody_remembers_is_kept(project, untrained):
    (project / 'runs/a/run.json').unlink()
    with pytest.raises(ParameterError, match='does not tell'):
        Analysis(names=False, data=project / 'world', out=project / 'runs/a', **TINY)


def test_a_checkpoint_is_needed_once(world, tmp_path, untrained):
    for seed in (0, 1):
        save_checkpoint(
            build_model('dinet', n_bases=4, backbone='squeezenet1_0', width=4),
            tmp_path / f'{seed}.safetensors',
        )
    settings = dict(data=world, out=tmp_path / 'run') | TINY
    Analysis(names=False, checkpoint=tmp_path / '0.safetensors', **settings).phase2()
    with pytest.raises(ParameterError, match='another checkpoint'):
        Analysis(names=False, checkpoint=tmp_path / '1.safetensors', **settings)
    (tmp_path / '0.safetensors').unlink()
    analysis = Analysis(names=False, **recorded_parameters(tmp_path / 'run'))
    assert analysis.phase2() and len(analysis.thresholds()) == 4
    with pytest.raises(ParameterError):
        Analysis(names=False, **settings)  # would train


# runs that end well


@pytest.fixture(scope='module')
def unnamed(world):
    "The same data, in which nothing is named."
    root = world.parent / 'unnamed'
    shutil.copytree(world, root, ignore=shutil.ignore_patterns('scene_graphs.json', 'truth.csv'))
    return root


@pytest.mark.usefixtures('in_this_process')
def test_without_names_there_are_scores_and_maps(unnamed, trained, tmp_path, capsys):
    "The whole notebook, and a comparison of what can be compared."
    done = said(capsys, 'run', '--data', unnamed, '--out', tmp_path / 'run', *OPTIONS)
    assert done.code == 0 and done.out.startswith(f'{unnamed} holds no named regions'), done.err
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    names = {p.stem for p in (unnamed / 'images/val').iterdir()}
    assert {p.stem for p in (tmp_path / 'run/maps').glob('*.png')} == names
    assert 'cc' in summary['scores'] and 'spearman' not in summary
    page = (tmp_path / 'run/model.html').read_text()
    heading = 'Summary</h2>' if 'Summary</h2>' in page else 'Summary'
    assert 'Is it true?' not in page and page.index(heading) < page.index('Calibration and thresholds')
    done = said(capsys, 'compare', tmp_path / 'run', trained, '--out', tmp_path / 'both')
    assert done.code == 0 and 'not scored' in done.out and 'no contributions' in done.out, done.err
    assert (tmp_path / 'both/compare_models.html').is_file()


@pytest.fixture
def telling(monkeypatch):
    "Every pass of images through a model says how far it is, as if it took minutes."
    monkeypatch.setattr(core.Progress, 'first', 0)
    monkeypatch.setattr(core.Progress, 'every', 0)


@pytest.fixture
def measured(project, telling):
    "Made by single commands: scores and contributions."
    analysis = Analysis(**recorded_parameters(project / 'runs/a'))
    analysis.scores()
    analysis.contributions()
    return project


def test_passes_of_images_say_how_far_they_are(capsys, measured):
    out = capsys.readouterr().out
    assert '\nscores: 8 of 12 images, about' in out and '\nthresholds: 5 of 11 images' in out, out
    assert 's left' in out


@pytest.mark.usefixtures('in_this_process')
def test_runs_on_other_pictures_of_the_same_names_are_not_paired(measured, tmp_path, capsys):
    "Means and rankings can be compared, pictures cannot."
    first, second = measured / 'runs/a', measured / 'runs/b'
    shutil.copytree(first, second)
    shutil.copytree(measured / 'world', measured / 'other')
    done = said(capsys, 'compare', first, second, '--out', tmp_path / 'alike')
    assert done.code == 0 and 'different images' not in done.out and 'scored by both' not in done.out, done
    record = json.loads((second / 'run.json').read_text())
    record['parameters']['data'] = str(measured / 'other')
    record['stages']['scores']['inputs']['data'] = 'another'
    record['stages']['dissection']['inputs']['regions'] = 'another'
    (second / 'run.json').write_text(json.dumps(record))
    done = said(capsys, 'compare', first, second, '--out', tmp_path / 'both')
    assert done.code == 0 and 'no image was scored by both' in done.out, done
    assert done.out.count('probed on different images') == 2
    assert 'Markdown' in done.out, 'no heading of the rankings'


def test_a_page_that_is_older_than_results_is_made_anew(project, capsys, monkeypatch):
    "A single command says that the page is older, and `report` executes instead of showing it again."
    run, made = project / 'runs/a', []
    nbformat.write(nbformat.v4.new_notebook(), run / 'model.ipynb')
    monkeypatch.setattr(runs, 'run', lambda **parameters: made.append(parameters) or 'PAGE')
    assert said(capsys, 'report', run).code == 0 and not made, 'nothing is newer than the page'
    os.utime(run / 'model.ipynb', (0, 0))
    done = said(capsys, 'thresholds', run)
    assert 'the page of this run shows earlier results' in done.out, done
    assert 'report: PAGE' in said(capsys, 'report', run).out and len(made) == 1


def test_other_stages_still_ask_for_names(unnamed, tmp_path, capsys, untrained):
    done = said(capsys, 'dissect', '--data', unnamed, '--out', tmp_path / 'run', *OPTIONS)
    one_sentence(done, 'holds no named regions')


def test_cells_that_need_names_are_the_ones_that_are_left_out():
    "No other cell speaks of what they define."
    cells = json.loads(analysis_path('model').read_text())['cells']
    code = [c for c in cells if c['cell_type'] == 'code']
    named = [''.join(c['source']) for c in code if 'names' in c['metadata'].get('tags', ())]
    rest = [''.join(c['source']) for c in code if 'names' not in c['metadata'].get('tags', ())]
    defined = set().union(*map(assigned, named)) - set().union(*map(assigned, rest))
    used = {n.id for source in rest for n in names_in(source)}
    assert len(named) > 10 and 'alignment' in defined and not defined & used


def names_in(source):
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)]


def assigned(source):
    return {n.id for n in names_in(source) if isinstance(n.ctx, ast.Store)}


def test_a_report_of_a_run_made_by_commands_executes_it(trained, capsys, monkeypatch):
    asked = {}

    def executed(**parameters):
        asked.update(parameters)
        return 'PAGE'

    monkeypatch.setattr(runs, 'run', executed)
    done = said(capsys, 'report', trained)
    assert done.code == 0 and 'report: PAGE' in done.out and asked == recorded_parameters(trained), done.err


@pytest.mark.parametrize(
    'arguments, word',
    [
        (['dissect', 'RUN', '--min-imagse', '3'], '--min-images'),
        (['run', 'RUN', '--retrian'], '--retrain'),
        (['disect', 'RUN'], 'dissect'),
        (['train', '--data', 'w', '--out', '/proc/nowhere'], '/proc/nowhere'),
        (['fit', 'm.py', '--data', 'w', '--out', 'o', '--n-bsaes', '3'], '--n-bases'),
    ],
    ids=lambda a: str(a)[:20],
)
def test_mistakes_are_one_sentence_with_what_was_meant(
    arguments, word, trained, capsys, tmp_path, monkeypatch, untrained
):
    monkeypatch.chdir(tmp_path)
    done = said(capsys, *[trained if a == 'RUN' else a for a in arguments])
    one_sentence(done, word)


def test_an_out_that_is_a_file_is_one_sentence(world, tmp_path, capsys, untrained):
    (tmp_path / 'file').write_text('')
    for command in ('train', 'run'):
        done = said(capsys, command, '--data', world, '--out', tmp_path / 'file', *OPTIONS)
        one_sentence(done, 'cannot be written into')


@pytest.mark.parametrize(
    'shape, sigma, words',
    [
        ((64, 96), None, '--height 64 --width 96'),
        ((600, 800), 24.0, '--height 240 --width 320'),
        ((1080, 1920), 19.0, 'sigma=58'),
    ],
    ids=str,
)
def test_the_next_command(shape, sigma, words, tmp_path):
    images = pd.DataFrame(dict(split='all', height=shape[0], width=shape[1], map_path=None), index=range(40))
    c = checks.Contents('own', images, None, None, sigma or 0.03 * shape[1], tmp_path / 'my data')
    found = checks.advice(c, {})
    command, sentences = found['command'], checks.advice_sentences(c, found)
    assert words in command and f"'{tmp_path}/my data'" in command
    assert ('sigma=' in command) == ('sigma=' in words)
    args = cli.parser().parse_args(shlex.split(command)[1:])  # it can be typed
    assert args.command == 'run' and any('nothing is named' in line for line in sentences)


# Ends of processes, damaged results, two commands at once


def command(*arguments):
    return [sys.executable, '-m', 'saliency_nb.cli', *map(str, arguments)]


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str)
def test_a_stopped_training_says_so(world, tmp_path, number, code, capsys, monkeypatch):
    line = training.History.line

    def stopping(self, trainer, text):
        line(self, trainer, text)
        if 'epoch 3/' in text:
            signal.raise_signal(number)

    monkeypatch.setattr(training.History, 'line', stopping)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may have it ignored
    try:
        options = ['--data', world, '--out', tmp_path / 'run', *OPTIONS, '--epochs', '9']
        done = said(capsys, 'train', *options)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == code and 'goes on from what is finished' in done.err, done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert (tmp_path / 'run/phase1/last.ckpt').is_file()


SECOND = """
import os, signal
from saliency_nb import training
from saliency_nb.core import DataError
add = training.History.add
def failing(self, trainer, module, epoch, **measured):
    add(self, trainer, module, epoch, **measured)
    if epoch == 2 and os.environ.get('LOCAL_RANK') == '1': END
training.History.add = failing
"""
LOST = 'devices = 2: one of the processes that train together was ended, perhaps for want of memory'
ENDS = {  # what the second process does, or the first is sent: exit code, sentence
    'raise DataError("a.jpg: cannot be read.")': (1, 'a.jpg: cannot be read.'),
    'os.kill(os.getpid(), signal.SIGKILL)': (1, LOST),
    'os.kill(os.getppid(), signal.SIGTERM)': (143, 'stopped'),
}


@pytest.mark.parametrize('end', ENDS)
def test_two_processes_end_in_one_sentence(world, tmp_path, end):
    (tmp_path / 'plugin.py').write_text(SECOND.replace('END', end))
    options = ['--plugin', tmp_path / 'plugin.py', '--epochs', '200', '--devices', '2']
    line = command('train', '--data', world, '--out', tmp_path / 'run', *OPTIONS, *options)
    env = os.environ | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    code, sentence = ENDS[end]
    assert done.returncode == code and done.stderr.startswith(f'saliency-nb: {sentence}'), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(set(lines)) and 'epoch 1/200' in done.stdout
    assert (tmp_path / 'run/phase1/last.ckpt').is_file()


def test_damaged_results_are_made_again(project, capsys):
    run = project / 'runs/a'
    assert cli.main(['contributions', str(run)]) == 0
    table = (run / 'contributions.csv').read_text()
    for file in ('thresholds.nc', 'alignment.nc'):
        whole = (run / file).read_bytes()
        (run / file).write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert cli.main(['contributions', str(run)]) == 0
    told = capsys.readouterr().out
    for file in ('thresholds.nc', 'alignment.nc'):
        assert f'{file} is not as it was written, made again' in told
    assert (run / 'contributions.csv').read_text() == table


@pytest.mark.parametrize('phase', ['phase1', 'phase2'])
def test_a_damaged_model_stops_with_a_sentence(project, phase, capsys):
    file = project / 'runs/a' / phase / 'best.safetensors'
    file.write_bytes(file.read_bytes()[:1000])
    done = said(capsys, 'thresholds', project / 'runs/a')
    one_sentence(done, '--retrain', f'{phase}/best.safetensors')


def working(run):
    "Another process that works in a folder, forked, since its imports would take seconds."
    begun, begins = os.pipe()
    process = os.fork()
    if not process:
        try:
            with folders.working_in(run):
                os.write(begins, b'in')
                time.sleep(60)
        finally:
            os._exit(1)
    assert os.read(begun, 2) == b'in'
    return process


def test_two_commands_do_not_mix(project, capsys):
    run = project / 'runs/a'
    first = working(run)
    done = said(capsys, 'thresholds', run)
    assert done.code == 1 and f'process {first} is working' in done.err
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert said(capsys, 'thresholds', run)[0] == 0  # the lock of a dead process is none

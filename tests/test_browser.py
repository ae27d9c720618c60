"""`saliency-nb explore RUN` in a real JupyterLab in a real Chromium.

The notebook runs there, and its widget answers to mouse and keyboard."""
import os, secrets, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path
import pytest, xarray as xr
from saliency_nb.stages import Analysis
from saliency_nb.declared import analysis_parameters
from saliency_nb.world import make_world

ROOT, CHROMIUM = Path(__file__).resolve().parent.parent, Path('/usr/bin/chromium')
playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
absent = f"{CHROMIUM} is not installed (Debian's package chromium)"
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=absent)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run']
FLAGS += ['--disable-background-networking', '--disable-component-update', '--disable-sync']
TINY = dict(features=16, n_bases=16, epochs=2, epochs2=1, accelerator='cpu')
QUIET = ['--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
JUPYTER = 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTERLAB_SETTINGS_DIR', 'JUPYTERLAB_WORKSPACES_DIR'
TRACKER = '@jupyterlab/notebook-extension/tracker.jupyterlab-settings'

EXECUTED = """Array.from(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt'))
    .every(e => /\\[\\d+\\]/.test(e.innerText))""" # every code cell has a number

def small_run(folder):
    "A run of a small world."
    make_world(folder/'world', n_images=60, size=(96, 128), seed=0)
    places = dict(data=str(folder/'world'), out=folder/'run')
    Analysis(**analysis_parameters('model') | TINY | places).dissection()
    name_all_bases(folder/'run/alignment.nc')
    return folder/'run'

def name_all_bases(file):
    "So little trained, a network has no name beyond chance; here all count."
    found = xr.load_dataset(file, engine='h5netcdf')
    found.assign(q_value=xr.zeros_like(found.q_value)).to_netcdf(file, engine='h5netcdf')

def keep_cells(settings):
    "In the page, although they are out of view."
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')

def own_environment(folder):
    "JupyterLab's settings and the package come from here only."
    env = os.environ | dict(PYTHONPATH=str(ROOT)) | {k: str(folder/k) for k in JUPYTER}
    env.pop('MPLBACKEND', None)
    keep_cells(folder/'JUPYTERLAB_SETTINGS_DIR'/TRACKER)
    return env

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def explore(run, port, token, env, log):
    "`saliency-nb explore` in a process of its own."
    command = [sys.executable, '-m', 'saliency_nb.cli', 'explore', run, '--no-browser', '--allow-root']
    served = ['--ip=127.0.0.1', f'--port={port}', f'--IdentityProvider.token={token}', *QUIET]
    with open(log, 'w') as file:
        return subprocess.Popen([*command, *served], env=env, stdout=file, stderr=subprocess.STDOUT,
                                start_new_session=True)

def wait_for(url):
    "At most a minute."
    for _ in range(120):
        try: return urllib.request.urlopen(url)
        except OSError: time.sleep(.5)

@pytest.fixture
def lab(tmp_path):
    "Address of the notebook that `saliency-nb explore` serves, for a small run."
    run = small_run(tmp_path)
    port, token = free_port(), secrets.token_hex(8)
    server = explore(run, port, token, own_environment(tmp_path), tmp_path/'lab.log')
    wait_for(f'http://127.0.0.1:{port}/api?token={token}')
    yield f'http://127.0.0.1:{port}/lab/tree/explore.ipynb?token={token}&reset'
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)

def picture(page): return page.locator('.widget-image').first.get_attribute('src')

def changed(page, before):
    "Wait until the widget shows another picture."
    shows_another = "s => document.querySelector('.widget-image').src !== s"
    page.wait_for_function(shows_another, arg=before, timeout=30_000)
    return picture(page)

def test_explorer_in_jupyterlab(lab, tmp_path):
    errors = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=1300, height=1100))
        page.on('pageerror', lambda e: errors.append(str(e)))
        try: use_explorer(page, lab)
        finally:
            page.screenshot(path=os.environ.get('SALIENCY_NB_SCREENSHOT', tmp_path/'explorer.png'))
            browser.close()
    assert not errors, errors

def use_explorer(page, lab):
    "Run the notebook, and use each part of its widget: each must change the picture."
    open_notebook(page, lab)
    run_all_cells(page)
    page.locator('.widget-slider').first.evaluate("e => e.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(500)
    first = picture(page)
    page.locator('.widget-select-multiple select').first.select_option(index=1) # a semantic is switched off
    second = changed(page, first)
    move_slider(page)
    third = changed(page, second)
    page.locator('.widget-dropdown select').first.select_option(index=2) # another image
    changed(page, third)
    assert 'bases switched off' in page.locator('.widget-html').first.inner_text()

def open_notebook(page, lab):
    "Until its kernel is there."
    page.goto(lab)
    page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=90_000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
    page.wait_for_selector('.jp-Toolbar-kernelName:has-text("Python of saliency_nb")', timeout=60_000)
    page.wait_for_timeout(3000) # run too early, JupyterLab asks which kernel to use

def run_all_cells(page):
    "By the menu, until all have run and the widget is there."
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
    page.locator('.widget-image').first.wait_for(timeout=120_000)
    page.wait_for_function(EXECUTED, timeout=120_000)

def move_slider(page):
    "With the mouse, from where it is to a fifth of its length."
    handle = page.locator('.widget-slider .noUi-handle').first.bounding_box()
    track = page.locator('.widget-slider .noUi-target').first.bounding_box()
    y = handle['y'] + handle['height'] / 2
    page.mouse.move(handle['x'] + handle['width'] / 2, y)
    page.mouse.down()
    page.mouse.move(track['x'] + track['width'] * .2, y, steps=8)
    page.mouse.up()

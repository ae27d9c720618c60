"Notebooks of commands, executed without a kernel, which takes seven CPU seconds to start."
import nbformat, pytest
from saliency_nb import runs

def execute(source, target, parameters, **options):
    "In place of papermill: what the cells print is printed, and is not in the notebook."
    nb, values = source, {}
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        exec(cell.source.replace('# | ', '#| '), values)
        if 'parameters' in cell.metadata.get('tags', ()): values.update(parameters)
    nbformat.write(nb, target)

@pytest.fixture
def in_this_process(monkeypatch): monkeypatch.setattr(runs.pm, 'execute_notebook', execute)

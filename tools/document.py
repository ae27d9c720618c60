"""Outputs of an executed analysis into the repository's copy of it, which then shows real results.

usage: python tools/document.py EXECUTED.ipynb nbs/analyses/NAME.ipynb   (then nbdev-clean)

Figures of cells tagged `photographs` are left out: they show pictures that are not ours to publish.
"""
import sys
import nbformat

LEFT_OUT = '(A figure with photographs, which are not ours to publish: a run of your own shows it.)'

def published(cell, outputs):
    "Outputs of a cell, without its figures where these hold photographs."
    if 'photographs' not in cell.metadata.get('tags', ()): return outputs
    kept = [o for o in outputs if 'image/png' not in o.get('data', {})]
    return [*kept, nbformat.v4.new_output('stream', name='stdout', text=LEFT_OUT)]

def main(executed, target):
    "Cells are told by their ids; one without outputs in the executed notebook has none."
    ran, nb = nbformat.read(executed, 4), nbformat.read(target, 4)
    outputs = {c.id: c.outputs for c in ran.cells if c.cell_type == 'code'}
    code = [c for c in nb.cells if c.cell_type == 'code']
    missing = [c.id for c in code if c.id not in outputs]
    if missing: raise SystemExit(f'{executed}: has no cell {missing[0]}; execute today\'s {target}.')
    for cell in code: cell.outputs = published(cell, outputs[cell.id])
    nbformat.write(nb, target)

if __name__ == '__main__': main(*sys.argv[1:])

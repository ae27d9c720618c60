"How much of an agreement over names is left where area is held fixed: for tests and the chapter Controls."
import numpy as np, pandas as pd
from scipy.stats import norm
from saliency_nb.core import ParameterError

def rank_interval(rho, names, held=0):
    "95% interval of a rank correlation over names, some columns held fixed: Bonett and Wright 2000."
    z = np.arctanh(np.clip(rho, -.999, .999))
    reach = norm.ppf(.975) * np.sqrt((1 + rho**2 / 2) / (names - 3 - held))
    return np.tanh(z - reach), np.tanh(z + reach)

def beside_area(claims, area, truth):
    "Rank correlations of claims, a column each, with area and truth over names, and what is left given area."
    rows = {}
    for k, claim in claims.items():
        table = pd.DataFrame(dict(claim=claim, area=area, truth=truth)).dropna()
        if len(table) < 6:
            raise ParameterError(f"only {len(table)} names have a claim '{k}', an area and a truth: "
                                 'a partial rank correlation needs six or more.')
        r, row = table.corr('spearman'), dict(names=len(table))
        rest = np.sqrt((1 - r.claim.area**2) * (1 - r.area.truth**2))
        given = (r.claim.truth - r.claim.area * r.area.truth) / rest
        for what, rho in dict(area=r.claim.area, truth=r.claim.truth, given_area=given).items():
            low, high = rank_interval(rho, len(table), held=what == 'given_area')
            short = what.removesuffix('_area')
            row |= {what: rho, f'{short}_low': low, f'{short}_high': high}
        rows[k] = row
    return pd.DataFrame(rows).T.astype(dict(names=int))

"""How probable a model finds data: the variational bound, and the flow's own density.

Both are estimates of -log p(data) in nats per datum, for any codec and any schedule, and comparable
between modalities. They bound *different* models of one network (a reverse process, a flow), so
neither is always the smaller one.
"""

from shared.likelihood.bound import chain_elbo, elbo
from shared.likelihood.estimate import Estimate, Likelihood
from shared.likelihood.flow import Density, log_density, ode
from shared.likelihood.trace import Trace, exact, hutchinson

__all__ = [
    "Density",
    "Estimate",
    "Likelihood",
    "Trace",
    "chain_elbo",
    "elbo",
    "exact",
    "hutchinson",
    "log_density",
    "ode",
]

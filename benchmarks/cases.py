"""Every case by name, and small ones that only show that everything runs."""

from collections.abc import Callable

from benchmarks import estimators, fast_weights, leo, maml, memory, methods, pretraining, sampler, startup
from benchmarks.measure import Case

SIZES = (10**4, 10**5, 10**6, 10**7)
STEPS = (1, 5, 20, 50)
SMALL = (8, 8)  # channels; quick cases spend their time on the compiler, and half of the layers are half of it
FOUR = (8,) * 4  # for what counts the layers

CASES: dict[str, Callable[[], Case]] = {
    "leo-1shot": lambda: leo.step(12, 5, 1, rounds=25),
    "leo-5shot": lambda: leo.step(12, 5, 5, rounds=25),
    "leo-20way-1shot": lambda: leo.step(12, 20, 1),
    "leo-20way-5shot": lambda: leo.step(12, 20, 5, rounds=3),
    "leo-96tasks": lambda: leo.step(96, 5, 1, rounds=5),
    "leo-768tasks": lambda: leo.step(768, 5, 1, rounds=3),
    "leo-iteration-1shot": lambda: leo.iteration(1),
    "leo-iteration-5shot": lambda: leo.iteration(5),
    "leo-evaluation-1shot": lambda: leo.evaluation(1, 1000),
    "leo-evaluation-5shot": lambda: leo.evaluation(5, 1000),
    "leo-baselines-1shot": lambda: leo.baselines(1, 1000),
    "leo-20way-20shot": lambda: leo.step(2, 20, 20, rounds=3, loop=False),
    "maml-sinusoid-1": lambda: maml.sinusoid(1),
    "maml-sinusoid-5": lambda: maml.sinusoid(5),
    "maml-omniglot-second": lambda: maml.omniglot(False),
    "maml-omniglot-first": lambda: maml.omniglot(True),
    "maml-84-second": lambda: maml.mini(False, rounds=3),
    "maml-84-first": lambda: maml.mini(True, rounds=3),
    "memory-conv4-loop": lambda: memory.conv4("loop", STEPS, rounds=2),
    "memory-conv4-vmap": lambda: memory.conv4("vmap", STEPS, rounds=2),
    "memory-leo-1shot": lambda: memory.of_leo("vmap", 1, STEPS),
    "memory-leo-5shot": lambda: memory.of_leo("vmap", 5, STEPS),
    "memory-leo-loop": lambda: memory.of_leo("loop", 1, STEPS),
    "sampler-indices": lambda: sampler.indices(SIZES),
    "sampler-gather": lambda: sampler.gather(SIZES),
    "startup": startup.startup,
    "estimators-1shot": lambda: estimators.latency(1),
    "estimators-5shot": lambda: estimators.latency(5),
    "pretraining-resnet-9-32": lambda: pretraining.step("resnet-9", 32, 256),
    "pretraining-resnet-12-93": lambda: pretraining.step("resnet-12", 93, 64),
    "methods-fomaml": lambda: maml.sinusoid(5, first_order=True),
    "methods-meta-sgd": methods.meta_sgd,
    "methods-meta-curvature": methods.meta_curvature,
    "methods-reptile": methods.reptile,
    "methods-imaml": methods.imaml,
    "methods-meta-lstm": methods.meta_lstm,
    "methods-cavia": fast_weights.cavia,
    "methods-t-net": fast_weights.t_net,
    "methods-mt-net": fast_weights.mt_net,
    "methods-maml-plus-plus": fast_weights.maml_plus_plus,
    "methods-csn": fast_weights.csn,
    "methods-omniglot-cavia": fast_weights.cavia_omniglot,
    "methods-omniglot-t-net": fast_weights.t_net_omniglot,
    "methods-omniglot-maml-plus-plus": fast_weights.maml_plus_plus_omniglot,
    "methods-omniglot-csn": fast_weights.csn_omniglot,
    "methods-omniglot-deml": fast_weights.deml_omniglot,
    "methods-omniglot-protonet": methods.protonet,
    "methods-omniglot-protomaml": methods.protomaml,
    "methods-omniglot-meta-curvature": methods.meta_curvature_omniglot,
}

QUICK: dict[str, Callable[[], Case]] = {
    "leo-1shot": lambda: leo.step(12, 5, 1, rounds=1),
    "leo-evaluation-1shot": lambda: leo.evaluation(1, 10),
    "leo-baselines-1shot": lambda: leo.baselines(1, 10),
    "maml-sinusoid-1": lambda: maml.sinusoid(1, rounds=1),
    "maml-omniglot-second": lambda: maml.omniglot(False, tasks=2, rounds=1, channels=SMALL),
    "maml-84-first": lambda: maml.mini(True, tasks=1, rounds=1, channels=SMALL),
    "memory-conv4-loop": lambda: memory.conv4("loop", (1, 2), tasks=1, rounds=1),
    "memory-leo-1shot": lambda: memory.of_leo("vmap", 1, (1, 2), tasks=2, rounds=1),
    "sampler-indices": lambda: sampler.indices(SIZES[:2]),
    "sampler-gather": lambda: sampler.gather(SIZES[:2]),
    "startup": lambda: startup.startup(rounds=1),
    "pretraining-resnet-9-32": lambda: pretraining.step("resnet-9", 32, 4, rounds=1),
    "methods-cavia": lambda: fast_weights.cavia(tasks=2, rounds=1),
    "methods-t-net": lambda: fast_weights.t_net(tasks=2, rounds=1),
    "methods-mt-net": lambda: fast_weights.mt_net(tasks=2, rounds=1),
    "methods-maml-plus-plus": lambda: fast_weights.maml_plus_plus(tasks=2, steps=2, rounds=1),
    "methods-csn": lambda: fast_weights.csn(tasks=2, rounds=1),
    "methods-omniglot-cavia": lambda: fast_weights.cavia_omniglot(tasks=2, rounds=1, channels=FOUR),
    "methods-omniglot-t-net": lambda: fast_weights.t_net_omniglot(tasks=2, rounds=1, channels=FOUR),
    "methods-omniglot-maml-plus-plus": lambda: fast_weights.maml_plus_plus_omniglot(2, 2, rounds=1, channels=FOUR),
    "methods-omniglot-csn": lambda: fast_weights.csn_omniglot(tasks=2, rounds=1, channels=FOUR),
    "methods-omniglot-deml": lambda: fast_weights.deml_omniglot(tasks=2, rounds=1, channels=FOUR),
    "methods-imaml": lambda: methods.imaml(tasks=2, steps=2, rounds=1),
    "methods-omniglot-protomaml": lambda: methods.protomaml(tasks=2, rounds=1, channels=SMALL),
    "leo-iteration-1shot": lambda: leo.iteration(1),  # last: it takes its compiled code from leo-1shot
}

COMPILED = ("leo-1shot", "leo-iteration-1shot", "maml-sinusoid-1")
"""Quick cases that compile: in the others the compiler would take nine tenths of the time."""

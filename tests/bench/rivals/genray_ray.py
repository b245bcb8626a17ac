"""genray through Ray on the common work. `python -m tests.bench.rivals.genray_ray --algorithm
full|sb3`

One collector with all eight lanes, one replay shard, one learner: three processes on this
machine's cores. The steps that count are those whose updates are made too: samples per insert
holds the two together at 32 / 8 = 4.
"""

import ray

from genray.distributed.coordinator import Coordinator, ray_session
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig
from tests.bench.common import last_json_line
from tests.bench.rivals import workload


def configuration(arguments) -> DQNConfig:
    """`full`: double, dueling, prioritized. `sb3`: Stable-Baselines3's DQN, with none of them."""
    full = arguments.algorithm == "full"
    return DQNConfig(
        env=EnvConfig(game=arguments.game),
        network=NetworkConfig(
            channels=workload.NATURE_CHANNELS, hidden=workload.NATURE_HIDDEN, dueling=full
        ),
        replay=ReplayConfig(
            capacity=workload.CAPACITY,
            prioritized=full,
            min_size=workload.LEARNING_STARTS,
            samples_per_insert=workload.BATCH_SIZE / workload.STEPS_PER_UPDATE,
        ),
        learner=LearnerConfig(
            batch_size=workload.BATCH_SIZE,
            double=full,
            learning_rate=workload.LEARNING_RATE,
            target_period_updates=workload.TARGET_PERIOD_UPDATES,
            precision=arguments.precision,
        ),
        explore=ExploreConfig(exploration="shared", epsilon=workload.EPSILON),
        collect=CollectConfig(
            collectors=1, envs_per_collector=workload.NUM_ENVS, gamma=workload.GAMMA, n_step=1
        ),
        run=RunConfig(seed=arguments.seed, device="cpu"),
    )


def main() -> None:

    def ours(parser) -> None:
        parser.add_argument("--algorithm", choices=("full", "sb3"), default="full")
        parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")

    arguments = workload.parse_arguments(__doc__, ours)
    config = configuration(arguments)
    with ray_session():
        engine = Coordinator(config, learner_threads=arguments.threads)
        watch = workload.Stopwatch(arguments.seconds)
        while True:
            progress = engine.advance(10**9, seconds=0.5)
            # Steps that the learner has answered with their updates, not those that merely wait in
            # the replay.
            learned_from = progress.updates * workload.STEPS_PER_UPDATE
            if result := watch.tick(learned_from, progress.updates):
                break
        shards = ray.get([shard.stats.remote() for shard in engine.shards])
        engine.close()
    bytes_a_transition = sum(shard["nbytes"] for shard in shards) / workload.CAPACITY
    last_json_line(
        {
            "system": f"genray ({arguments.algorithm})",
            "threads": arguments.threads,
            "weight_lag": progress.weight_lag,
            "bytes_per_transition": bytes_a_transition,
        }
        | result
    )


if __name__ == "__main__":
    main()

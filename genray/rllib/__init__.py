"""Ape-X through RLlib's interface: `ApexDQNConfig` and `ApexDQN`.

Example::

    from genray.rllib import ApexDQN, ApexDQNConfig

    config = ApexDQNConfig().environment("ale_py:ALE/Pong-v5").training(lr=2.5e-4, n_step=5)
    algo = config.build_algo()
    algo.train(); algo.evaluate(); algo.save_to_path("/somewhere")

    tune.run(ApexDQN, config={"env": "breakout", "lr": tune.loguniform(1e-5, 1e-3)},
             stop={"training_iteration": 100})

Only the interface comes from RLlib. The coordinator's actors play, store and learn. RLlib's
environment runners, learner group and replay buffers are never created. `validate` refuses a
setting of AlgorithmConfig that would have no effect here, unless it has its default value. No other
package imports ray.rllib, so only this package must follow RLlib's changes.
"""

from genray.rllib.algorithm import ApexDQN
from genray.rllib.config import ApexDQNConfig
from genray.rllib.options import TrainingOptions

__all__ = ["ApexDQN", "ApexDQNConfig", "TrainingOptions"]

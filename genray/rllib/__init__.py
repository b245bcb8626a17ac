"""Ape-X behind the face that RLlib users know: `ApexDQNConfig` and `ApexDQN`.

    from genray.rllib import ApexDQN, ApexDQNConfig

    algo = ApexDQNConfig().environment("ale_py:ALE/Pong-v5").training(lr=2.5e-4,
    n_step=5).build_algo() algo.train(); algo.evaluate(); algo.save_to_path("/somewhere")
    tune.run(ApexDQN, config={"env": "breakout", "lr": tune.loguniform(1e-5, 1e-3)},
    stop={"training_iteration": 100})

Only the face is RLlib's. Playing, replay and learning are the coordinator's actors; RLlib's
environment runners, learner group and replay buffers are never made. A setting of
AlgorithmConfig therefore either means something here or is refused by `validate`; none is
ignored. This is the only room that imports ray.rllib: it alone follows its changes.
"""

from genray.rllib.algorithm import ApexDQN
from genray.rllib.config import ApexDQNConfig
from genray.rllib.options import TrainingOptions

__all__ = ["ApexDQN", "ApexDQNConfig", "TrainingOptions"]

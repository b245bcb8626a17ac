"""Play CartPole with an exported policy, without genray and without PyTorch.

    genray train dqn --preset cartpole --local --out runs/cartpole
    genray export runs/cartpole --out policy.onnx
    python examples/onnx_policy.py policy.onnx

What you see: the score of each episode, at most 500, and their mean. A trained policy holds the
pole up for most of an episode; random actions last about 22 steps.
"""

import argparse

import gymnasium
import numpy as np
import onnxruntime


def main() -> None:
    parser = argparse.ArgumentParser(description="Play CartPole with a policy in ONNX.")
    parser.add_argument("policy", help="what `genray export` wrote")
    parser.add_argument("--episodes", type=int, default=10)
    options = parser.parse_args()

    session = onnxruntime.InferenceSession(options.policy)
    env = gymnasium.make("CartPole-v1")
    scores = []
    for episode in range(options.episodes):
        observation, _ = env.reset(seed=episode)
        score, over = 0.0, False
        while not over:
            (q_values,) = session.run(None, {"observation": observation[None]})
            observation, reward, terminated, truncated, _ = env.step(int(q_values[0].argmax()))
            score += float(reward)
            over = terminated or truncated
        scores.append(score)
        print(f"episode {episode}: score {score:g}")
    env.close()
    print(f"mean score {np.mean(scores):.1f}")


if __name__ == "__main__":
    main()

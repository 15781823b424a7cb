"""From a space to specs. Optuna proposes; nothing in here sees a tensor."""

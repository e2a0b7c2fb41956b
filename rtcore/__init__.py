"""rtcore: runtime for realtime reinforcement learning with staggered asynchronous inference."""

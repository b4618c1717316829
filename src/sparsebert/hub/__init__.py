"""Models on the hub: folders checked and sent, repositories fetched and opened."""

"""What a checkpoint carries: every file here is copied into it, so that none imports anything else of the package."""

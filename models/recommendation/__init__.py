"""Recommendation: which action helps a user most?"""

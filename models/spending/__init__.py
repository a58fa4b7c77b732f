"""Spending: how much will a user spend in the coming weeks?"""

"""Segmentation: which group of users behaves alike?"""

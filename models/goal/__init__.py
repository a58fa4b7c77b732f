"""Goal achievement: will a user meet a goal?"""
